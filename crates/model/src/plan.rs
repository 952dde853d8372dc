//! Plans: what an account may use. They are data, so that an operator can have others.

use std::fmt;
use std::sync::Arc;

use crate::ClusterId;

/// The short name of a plan, such as `free`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PlanCode(Arc<str>);

/// Why a text is not a [`PlanCode`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("A plan's code has 1 to {} characters out of a-z, 0-9, '-' and '_'", PlanCode::LEN_MAX)]
pub struct PlanCodeError;

impl PlanCode {
    /// The longest code, in bytes: it stands in URLs and in every account's row.
    pub const LEN_MAX: usize = 64;

    /// Takes the code of a new plan.
    ///
    /// # Errors
    /// [`PlanCodeError`] if it is empty, too long or has other characters.
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

    /// A code; whether such a plan exists is for [`Plans::find`] to say.
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

/// What a plan allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanLimits {
    /// The bytes that all pins may have together.
    pub storage_bytes: u64,
    /// The bytes that one uploaded file may have; `None` for what the storage allows.
    pub file_bytes_max: Option<u64>,
    /// The bytes that the files of one uploaded directory may have together; `None` for what the storage allows.
    pub directory_bytes_max: Option<u64>,
    /// Whether pins may end by themselves.
    pub timelock: bool,
    /// Whether pins may be locked against their removal.
    pub retention_lock: bool,
    /// The clusters that may be used; `None` for all.
    pub clusters: Option<Vec<ClusterId>>,
    /// Pins that may be on their way at once, so that one account can't fill the queue.
    pub in_flight_pins_max: u32,
    /// Requests in a minute, for each key.
    pub requests_per_minute: u32,
    /// Requests in a second, for each key.
    pub requests_per_second: u32,
}

/// A plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Its short name.
    pub code: PlanCode,
    /// Its name for people.
    pub name: String,
    /// What it is for, in some sentences for people.
    pub descriptions: Vec<String>,
    /// What it costs a month, in hundredths of the operator's currency. It is only shown.
    pub price_cents: u64,
    /// Whether accounts may change to it by themselves.
    pub self_service: bool,
    /// What it allows.
    pub limits: PlanLimits,
}

/// What is wrong with a [`Plan`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The name is empty, too long or no line.
    #[error("A plan's name has 1 to {} bytes and no control characters", Plan::NAME_LEN_MAX)]
    Name,
    /// There are too many descriptions, or one is empty, too long or no line.
    #[error(
        "A plan has at most {} descriptions, each of 1 to {} bytes without control characters",
        Plan::DESCRIPTIONS_MAX,
        Plan::DESCRIPTION_LEN_MAX
    )]
    Descriptions,
    /// A size is above [`PlanLimits::BYTES_MAX`].
    #[error("A size is at most {} bytes", PlanLimits::BYTES_MAX)]
    Bytes,
    /// A file or directory may have no byte.
    #[error("A file or directory of no bytes is no limit; leave it out")]
    NoBytes,
    /// The price is above [`Plan::PRICE_CENTS_MAX`].
    #[error("A price is at most {}", Plan::PRICE_CENTS_MAX / 100)]
    Price,
    /// Pins on their way, or requests, may be none at all.
    #[error("The pins on their way and the request rates are at least 1")]
    NoRequests,
}

impl PlanLimits {
    /// The largest size of anything, in bytes: 2^53 - 1, which every reader of JSON keeps exactly.
    pub const BYTES_MAX: u64 = (1 << 53) - 1;
}

impl Plan {
    /// The longest name, in bytes.
    pub const NAME_LEN_MAX: usize = 255;
    /// The most descriptions.
    pub const DESCRIPTIONS_MAX: usize = 20;
    /// The longest description, in bytes.
    pub const DESCRIPTION_LEN_MAX: usize = 500;
    /// The highest price, in hundredths.
    pub const PRICE_CENTS_MAX: u64 = 1_000_000_000;

    /// Checks what can be checked of a plan by itself. Whether its clusters exist is for others to say.
    ///
    /// # Errors
    /// [`PlanError`] names the first thing that is wrong.
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
            return Err(PlanError::NoBytes);
        }
        if self.price_cents > Self::PRICE_CENTS_MAX {
            return Err(PlanError::Price);
        }
        if [limits.in_flight_pins_max, limits.requests_per_minute, limits.requests_per_second].contains(&0) {
            return Err(PlanError::NoRequests);
        }
        Ok(())
    }

    /// 1 GiB, no timelock, no retention lock.
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

    /// 1 TiB, timelock, retention lock. Two full batches of pins may be on their way.
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

    /// Whether its pins may go to this cluster.
    #[must_use]
    pub fn allows(&self, cluster: &ClusterId) -> bool {
        self.limits.clusters.as_ref().is_none_or(|allowed| allowed.contains(cluster))
    }
}

/// The plans on offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plans(Vec<Arc<Plan>>);

impl Plans {
    /// These plans, in this order. The first is what an account gets that names none.
    #[must_use]
    pub fn new(plans: Vec<Plan>) -> Self {
        Self(plans.into_iter().map(Arc::new).collect())
    }

    /// The plan with this code.
    #[must_use]
    pub fn find(&self, code: &PlanCode) -> Option<&Arc<Plan>> {
        self.0.iter().find(|plan| plan.code == *code)
    }

    /// These plans with `saved` over them: one of the same code takes the other's place, new ones come last.
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

    /// All plans.
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
    fn codes_are_plain_words() {
        assert_eq!(PlanCode::parse("team-2_a").unwrap().as_str(), "team-2_a");
        for bad in ["", "Free", "a b", "a/b", "a.b", "ä", &"a".repeat(65)] {
            assert_eq!(PlanCode::parse(bad), Err(PlanCodeError), "{bad:?}");
        }
    }

    #[test]
    fn a_saved_plan_stands_where_the_one_of_its_code_stood() {
        let small = Plan { name: "Small".to_owned(), ..Plan::free() };
        let team = Plan { code: PlanCode::new("team"), ..Plan::premium() };
        let plans = Plans::default().overridden_by([team, small]);
        let names: Vec<_> = plans.iter().map(|plan| (plan.code.as_str(), plan.name.as_str())).collect();
        assert_eq!(names, [("free", "Small"), ("premium", "Premium"), ("team", "Premium")]);
    }
}
