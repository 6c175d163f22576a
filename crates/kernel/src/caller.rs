//! Who is calling.

use crate::{KeyId, TenantId};

/// Who a credential turned out to belong to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The tenant that is served and, later, billed.
    pub tenant: TenantId,
    /// The key it used; `None` where no credential was asked for.
    pub key: Option<KeyId>,
}

impl Caller {
    /// The caller of a door that asks for no credentials.
    pub fn anonymous() -> Self {
        Self { tenant: TenantId::new("anonymous"), key: None }
    }
}

/// How urgent a call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub enum Priority {
    /// Work that can wait.
    Low,
    /// The default.
    #[default]
    Normal,
    /// Somebody is waiting for it.
    High,
}

impl Priority {
    /// Reads `high`, `normal` or `low`, as in `x-sluice-priority`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "high" => Some(Self::High),
            "normal" => Some(Self::Normal),
            "low" => Some(Self::Low),
            _ => None,
        }
    }
}
