//! What a tenant is promised and what it costs, in the words of configs, stores and bills alike.

mod billing;
mod budget;
mod credentials;
mod limits;
mod models;
mod networks;
mod preprocess;

pub use billing::{Billing, Monthly, Price};
pub use budget::{Budget, BudgetScope, Period};
pub use credentials::{CredentialKind, Scope};
pub use limits::{Limits, ModelLimits};
pub use models::{Allow, matches};
pub use networks::{Network, Origins};
pub use preprocess::{OtherFields, Preprocess, ROUTING};
