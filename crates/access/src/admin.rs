//! The control plane's port: metrics and health, open; the admin API, for operators and tenants.
//!
//! Each noun has a file with its endpoints as rows ([`route::ROUTES`]). What is done stands in `tenancy`; here is who may
//! ask, and how it looks in JSON.

mod asked;
mod balance;
mod budgets;
mod by;
mod invoices;
mod keys;
mod lines;
mod openapi;
mod overview;
mod paper;
mod plans;
mod prices;
mod refusal;
pub mod route;
mod router;
mod schema;
mod tenants;
mod usage;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kernel::explain::{Decisions, Lines};
use tenancy::invoice::Books;
use tenancy::{Purse, Register};
use tokio_util::sync::CancellationToken;

pub use self::asked::{Asked, Page};
pub use self::by::{By, new_token};
pub use self::openapi::document;
pub use self::refusal::Refusal;
pub use self::route::{Route, routes};
use crate::Door;

/// What the control plane shows and changes.
pub struct Plane {
    /// The door whose machine's token is asked for.
    pub door: Arc<Door>,
    /// Who there is.
    pub register: Arc<Register>,
    /// What was consumed, and what is owed.
    pub books: Books,
    /// What may still be spent.
    pub purse: Arc<Purse>,
    /// How long a question about it may take.
    pub report_within: Duration,
    /// Writes all metrics in the OpenMetrics text format.
    pub metrics: Box<dyn Fn() -> String + Send + Sync>,
    /// Those who wait.
    pub lines: Box<dyn Lines>,
    /// Why calls were placed as they were.
    pub decisions: Box<dyn Decisions>,
}

/// Serves the control plane until `stop`.
///
/// # Errors
/// When the listening socket fails.
pub async fn serve(listener: tokio::net::TcpListener, plane: Plane, stop: CancellationToken) -> std::io::Result<()> {
    let service = router::router(Arc::new(plane)).into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service).with_graceful_shutdown(stop.cancelled_owned()).await
}

/// Binds the control plane's address.
///
/// # Errors
/// When the address is in use or not ours.
pub async fn bind(address: SocketAddr) -> std::io::Result<tokio::net::TcpListener> {
    tokio::net::TcpListener::bind(address).await
}
