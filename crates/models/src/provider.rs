//! The languages backends speak. One file and one row per provider.

mod openai;
mod service;
mod sim;

use kernel::{Ctx, Kind, Placed, Serving, kind};

use crate::instance::Instance;
use crate::settings::{InstanceSettings, ModelSettings};

/// Speaks with one kind of backend.
pub(crate) trait Provider: Send + Sync + 'static {
    /// Sends a placed call to `instance` and answers with what came back. A streamed answer is handed over
    /// once its first event is there, so that everything that goes wrong before can still be tried elsewhere.
    fn serve<'a>(&'a self, ctx: &'a Ctx, placed: Placed, instance: &'a std::sync::Arc<Instance>) -> Serving<'a>;
}

/// What a row knows.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Whether an instance must say where it is.
    pub needs_endpoint: bool,
    pub(crate) make: fn(&ModelSettings, &InstanceSettings) -> Box<dyn Provider>,
}

/// Every provider there is.
pub const KINDS: &[Kind<Row>] = &[openai::KIND, sim::KIND];

/// What a model gets that names none.
pub(crate) const DEFAULT: Kind<Row> = openai::KIND;

/// What plain services have; no model can name it.
pub(crate) const SERVICE: Kind<Row> = service::KIND;

/// The row of this name.
pub(crate) fn named(name: &str) -> Kind<Row> {
    let own = (name == SERVICE.name).then_some(SERVICE);
    own.or_else(|| kind::find(KINDS, name).copied()).unwrap_or(DEFAULT)
}
