//! The door: sockets and HTTP on one side, kernel words on the other.
//!
//! A connection lives on one data-plane thread ([`listener`]); each request on it becomes a visit to the
//! [`Door`], which finds out who calls, reads the body, asks the machine and writes the answer back. The
//! door decides nothing about where a call goes. hyper's types stay inside `listener`.

pub mod admin;
pub mod credential;
pub mod door;
mod explanation;
pub mod gate;
pub mod listener;
pub mod settings;

mod announcement;

pub use credential::Credentials;
pub use door::service::{Service, Services};
pub use door::{Door, Machine};
pub use gate::cors::{Cors, CorsSettings};
pub use gate::ip_filter::{IpFilter, IpFilterSettings};
pub use gate::{Chain, GateName};
pub use listener::{Cores, Listener};
pub use settings::{AdminSettings, Auth, ClientAuth, LimitSettings, ListenSettings, TlsSettings};
