//! Plans: the limits of accounts. Plans are data, so that an operator can define others.

use std::fmt;
use std::sync::Arc;

use crate::ClusterId;

/// Identifier of a plan, such as `free`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PlanCode(Arc<str>);

/// The text is not a valid [`PlanCode`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("A plan's code has 1 to {} characters out of a-z, 0-9, '-' and '_'", PlanCode::LEN_MAX)]
pub struct PlanCodeError;

impl PlanCode {
    /// Maximum length in bytes. The code is part of URLs and of the row of every account.
    pub const LEN_MAX: usize = 64;

    /// Parses the code of a new plan.
    ///
    /// # Errors
    /// [`PlanCodeError`] if the text is empty, too long or contains other characters.
    pub fn parse(text: &str) -> Result<Self, PlanCodeError> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
        let fits = (1..=Self::LEN_MAX).contains(&text.len()) && text.bytes().all(plain);
        if fits { Ok(Self::new(text)) } else { Err(PlanCodeError) }
    }

    /// The code as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A code without validation. [`Plans::find`] determines whether the plan exists.
    #[must_use]
    pub fn new(code: &str) -> Self {
        Self(code.into())
    }
}

impl fmt::Display for PlanCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Limits and permitted features of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanLimits {
    /// Maximum total size of all pins of an account.
    pub storage_bytes: u64,
    /// Maximum size of an uploaded file; `None` if only the storage limits it.
    pub file_bytes_max: Option<u64>,
    /// Maximum total size of the files of an uploaded directory; `None` if only the storage limits it.
    pub directory_bytes_max: Option<u64>,
    /// Whether pins may have a timelock.
    pub timelock: bool,
    /// Whether pins may have a retention lock.
    pub retention_lock: bool,
    /// Permitted clusters; `None` for all.
    pub clusters: Option<Vec<ClusterId>>,
    /// Maximum number of pins in flight, so that one account can't fill the queue.
    pub in_flight_pins_max: u32,
    /// For each API key.
    pub requests_per_minute: u32,
    /// For each API key.
    pub requests_per_second: u32,
}

/// A plan: the limits of its accounts, and how it is presented.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub code: PlanCode,
    /// Display name.
    pub name: String,
    /// Displayed description, one entry for each line.
    pub descriptions: Vec<String>,
    /// Price for a month, in hundredths of the operator's currency. Only displayed; nothing is billed.
    pub price_cents: u64,
    /// Whether accounts may switch to the plan without an operator.
    pub self_service: bool,
    pub limits: PlanLimits,
}

/// A [`Plan`] is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The name is empty, too long, or contains control characters.
    #[error("A plan's name has 1 to {} bytes and no control characters", Plan::NAME_LEN_MAX)]
    Name,
    /// There are too many descriptions, or one is empty, too long, or contains control characters.
    #[error(
        "A plan has at most {} descriptions, each of 1 to {} bytes without control characters",
        Plan::DESCRIPTIONS_MAX,
        Plan::DESCRIPTION_LEN_MAX
    )]
    Descriptions,
    /// A size is larger than [`PlanLimits::BYTES_MAX`].
    #[error("A size is at most {} bytes", PlanLimits::BYTES_MAX)]
    Bytes,
    /// A size limit of a file or directory is zero.
    #[error("The size limit of a file or directory must be at least 1 byte; omit it for no limit")]
    ZeroSize,
    /// The price is higher than [`Plan::PRICE_CENTS_MAX`].
    #[error("A price is at most {}", Plan::PRICE_CENTS_MAX / 100)]
    Price,
    /// The limit of pins in flight, or of a request rate, is zero.
    #[error("The limits of pins in flight and of request rates must be at least 1")]
    ZeroRate,
}

impl PlanLimits {
    /// Maximum of every size: 2^53 - 1, the largest integer that all JSON parsers represent exactly.
    pub const BYTES_MAX: u64 = (1 << 53) - 1;
}

impl Plan {
    /// In bytes.
    pub const NAME_LEN_MAX: usize = 255;
    pub const DESCRIPTIONS_MAX: usize = 20;
    /// In bytes.
    pub const DESCRIPTION_LEN_MAX: usize = 500;
    pub const PRICE_CENTS_MAX: u64 = 1_000_000_000;

    /// Validates the plan. Does not check whether its clusters exist.
    ///
    /// # Errors
    /// [`PlanError`] with the first violation.
    pub fn check(&self) -> Result<(), PlanError> {
        let is_line = |text: &str, len_max: usize| {
            !text.trim().is_empty() && text.len() <= len_max && !text.chars().any(char::is_control)
        };
        if !is_line(&self.name, Self::NAME_LEN_MAX) {
            return Err(PlanError::Name);
        }
        let is_description = |text: &String| is_line(text, Self::DESCRIPTION_LEN_MAX);
        if self.descriptions.len() > Self::DESCRIPTIONS_MAX || !self.descriptions.iter().all(is_description) {
            return Err(PlanError::Descriptions);
        }
        let limits = &self.limits;
        let sizes = [Some(limits.storage_bytes), limits.file_bytes_max, limits.directory_bytes_max];
        if sizes.into_iter().flatten().any(|bytes| bytes > PlanLimits::BYTES_MAX) {
            return Err(PlanError::Bytes);
        }
        if [limits.file_bytes_max, limits.directory_bytes_max].contains(&Some(0)) {
            return Err(PlanError::ZeroSize);
        }
        if self.price_cents > Self::PRICE_CENTS_MAX {
            return Err(PlanError::Price);
        }
        if [limits.in_flight_pins_max, limits.requests_per_minute, limits.requests_per_second].contains(&0) {
            return Err(PlanError::ZeroRate);
        }
        Ok(())
    }

    /// The built-in free plan: 1 GiB, without timelock and retention lock.
    #[must_use]
    pub fn free() -> Self {
        Self {
            code: PlanCode::new("free"),
            name: "Free".to_owned(),
            descriptions: vec!["1 GiB of storage".to_owned()],
            price_cents: 0,
            self_service: true,
            limits: PlanLimits {
                storage_bytes: 1 << 30,
                file_bytes_max: None,
                directory_bytes_max: None,
                timelock: false,
                retention_lock: false,
                clusters: None,
                in_flight_pins_max: 100,
                requests_per_minute: 300,
                requests_per_second: 20,
            },
        }
    }

    /// The built-in premium plan: 1 TiB, with timelock and retention lock. Two full batches of pins may be in flight.
    #[must_use]
    pub fn premium() -> Self {
        Self {
            code: PlanCode::new("premium"),
            name: "Premium".to_owned(),
            descriptions: vec!["1 TiB of storage".to_owned(), "Timelocks and retention locks".to_owned()],
            price_cents: 0,
            self_service: false,
            limits: PlanLimits {
                storage_bytes: 1 << 40,
                file_bytes_max: None,
                directory_bytes_max: None,
                timelock: true,
                retention_lock: true,
                clusters: None,
                in_flight_pins_max: 2_000,
                requests_per_minute: 6_000,
                requests_per_second: 200,
            },
        }
    }

    /// Whether accounts with the plan may use this cluster.
    #[must_use]
    pub fn allows(&self, cluster: &ClusterId) -> bool {
        self.limits.clusters.as_ref().is_none_or(|allowed| allowed.contains(cluster))
    }
}

/// All available plans, in the order in which they are displayed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plans(Vec<Arc<Plan>>);

impl Plans {
    /// These plans, in this order. The first one is the default of new accounts.
    #[must_use]
    pub fn new(plans: Vec<Plan>) -> Self {
        Self(plans.into_iter().map(Arc::new).collect())
    }

    /// The plan with this code, if it exists.
    #[must_use]
    pub fn find(&self, code: &PlanCode) -> Option<&Arc<Plan>> {
        self.0.iter().find(|plan| plan.code == *code)
    }

    /// These plans, overridden by `saved`: a saved plan replaces the one with the same code in place; others are appended.
    #[must_use]
    pub fn overridden_by(&self, saved: impl IntoIterator<Item = Plan>) -> Self {
        let mut plans = self.0.clone();
        for plan in saved {
            let plan = Arc::new(plan);
            match plans.iter_mut().find(|old| old.code == plan.code) {
                Some(old) => *old = plan,
                None => plans.push(plan),
            }
        }
        Self(plans)
    }

    /// All plans, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Plan>> {
        self.0.iter()
    }
}

impl Default for Plans {
    /// [`Plan::free`] and [`Plan::premium`].
    fn default() -> Self {
        Self::new(vec![Plan::free(), Plan::premium()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plan_code_rejects_invalid_text() {
        assert_eq!(PlanCode::parse("team-2_a").unwrap().as_str(), "team-2_a");
        for bad in ["", "Free", "a b", "a/b", "a.b", "ä", &"a".repeat(65)] {
            assert_eq!(PlanCode::parse(bad), Err(PlanCodeError), "{bad:?}");
        }
    }

    #[test]
    fn saved_plan_replaces_the_one_with_its_code_in_place() {
        let small = Plan { name: "Small".to_owned(), ..Plan::free() };
        let team = Plan { code: PlanCode::new("team"), ..Plan::premium() };
        let plans = Plans::default().overridden_by([team, small]);
        let names: Vec<_> = plans.iter().map(|plan| (plan.code.as_str(), plan.name.as_str())).collect();
        assert_eq!(names, [("free", "Small"), ("premium", "Premium"), ("team", "Premium")]);
    }
}
