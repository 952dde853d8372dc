//! Plans: what an account may use. They are data, so that an operator can have others.

use std::fmt;
use std::sync::Arc;

use crate::ClusterId;

/// The short name of a plan, such as `free`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PlanCode(Arc<str>);

impl PlanCode {
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
    /// What it allows.
    pub limits: PlanLimits,
}

impl Plan {
    /// 1 GiB, no timelock, no retention lock.
    #[must_use]
    pub fn free() -> Self {
        Self {
            code: PlanCode::new("free"),
            name: "Free".to_owned(),
            limits: PlanLimits {
                storage_bytes: 1 << 30,
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
            limits: PlanLimits {
                storage_bytes: 1 << 40,
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
#[derive(Debug, Clone)]
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
