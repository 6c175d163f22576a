//! Small documents of trusted services, over hyper's client.
//!
//! Every fetch runs on the runtime the driver was made on, whoever asks: a data-plane thread waits for the answer and
//! drives no connection of this kind.

use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, USER_AGENT};
use http::{Method, Request};
use http_body::Body as _;
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kernel::fetch::{Ask, Fault, Fetch, Fetched, Fetching, is_safe};
use kernel::settings::Secret;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::runtime::Handle;
use zeroize::Zeroizing;

/// For a connection to stand; the whole fetch has the time its asker gives it.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);
/// Bound: these services are asked rarely, and connections kept for long are dead more often than not.
const IDLE_MAX: usize = 2;
const IDLE_FOR: Duration = Duration::from_secs(30);

/// The driver.
#[derive(Debug, Clone)]
pub struct Fetcher {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    runtime: Handle,
}

/// Why further roots cannot be used.
#[derive(Debug)]
pub struct RootsFault {
    path: PathBuf,
    why: String,
}

// === impl Fetcher ===

impl Fetcher {
    /// A driver on the current runtime that trusts Mozilla's roots, and those in `roots`: a PEM file.
    ///
    /// # Errors
    /// When the file cannot be read or holds no certificate.
    pub fn new(roots: Option<&Path>) -> Result<Self, RootsFault> {
        let mut store = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        if let Some(path) = roots {
            add_roots(&mut store, path).map_err(|why| RootsFault { path: path.to_owned(), why })?;
        }
        let tls = ClientConfig::builder().with_root_certificates(store).with_no_client_auth();
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_connect_timeout(Some(CONNECT_WITHIN));
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(http);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_FOR)
            .pool_max_idle_per_host(IDLE_MAX)
            .build(connector);
        Ok(Self { client, runtime: Handle::current() })
    }

    async fn exchange(&self, ask: &Ask) -> Result<Fetched, Fault> {
        let unreachable = |fault: &dyn std::error::Error| Fault::Unreachable(innermost(fault));
        let answer = self.client.request(request(ask)?).await.map_err(|fault| unreachable(&fault))?;
        let status = answer.status().as_u16();
        let mut body = answer.into_body();
        let mut whole = BytesMut::new();
        loop {
            let frame = std::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx)).await;
            let Some(frame) = frame else { break };
            let frame = frame.map_err(|fault| unreachable(&fault))?;
            let Ok(piece) = frame.into_data() else { continue };
            if whole.len() + piece.len() > ask.most {
                return Err(Fault::TooLarge);
            }
            whole.extend_from_slice(&piece);
        }
        Ok(Fetched { status, body: whole.freeze() })
    }
}

impl Fetch for Fetcher {
    fn fetch(&self, ask: Ask) -> Fetching<'_> {
        Box::pin(async move {
            if !is_safe(&ask.url) {
                return Err(Fault::Url);
            }
            let driver = self.clone();
            let work = async move {
                let exchange = tokio::time::timeout(ask.within, driver.exchange(&ask));
                exchange.await.unwrap_or(Err(Fault::Slow))
            };
            let task = AbortOnDrop(self.runtime.spawn(work));
            task.await.unwrap_or_else(|fault| Err(Fault::Unreachable(fault.to_string())))
        })
    }
}

/// A task that ends with who waits for it.
struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> std::future::Future for AbortOnDrop<T> {
    type Output = Result<T, tokio::task::JoinError>;

    fn poll(mut self: std::pin::Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<Self::Output> {
        std::pin::Pin::new(&mut self.0).poll(cx)
    }
}

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn request(ask: &Ask) -> Result<Request<Full<Bytes>>, Fault> {
    let (method, body) = match &ask.form {
        None => (Method::GET, Bytes::new()),
        Some(fields) => (Method::POST, form(fields)),
    };
    let mut request = Request::builder()
        .method(method)
        .uri(&ask.url)
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, concat!("sluice/", env!("CARGO_PKG_VERSION")))
        .body(Full::new(body))
        .map_err(|_| Fault::Url)?;
    if ask.form.is_some() {
        let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
        request.headers_mut().insert(CONTENT_TYPE, kind);
    }
    if let Some((name, password)) = &ask.basic {
        let mut value = HeaderValue::from_str(&basic(name, password)).map_err(|_| Fault::Url)?;
        value.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, value);
    }
    Ok(request)
}

fn form(fields: &[(&'static str, Secret)]) -> Bytes {
    let mut text = String::new();
    for (name, value) in fields {
        if !text.is_empty() {
            text.push('&');
        }
        text.push_str(name);
        text.push('=');
        escape(value.expose(), &mut text);
    }
    text.into()
}

/// RFC 6749 §2.3.1: both parts are form-encoded before they are joined.
fn basic(name: &str, password: &Secret) -> Zeroizing<String> {
    let mut pair = Zeroizing::new(String::new());
    escape(name, &mut pair);
    pair.push(':');
    escape(password.expose(), &mut pair);
    Zeroizing::new(format!("Basic {}", BASE64.encode(pair.as_bytes())))
}

fn escape(text: &str, to: &mut String) {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => to.push(char::from(byte)),
            _ => to.push_str(&format!("%{byte:02X}")),
        }
    }
}

fn add_roots(store: &mut RootCertStore, path: &Path) -> Result<(), String> {
    let certificates = CertificateDer::pem_file_iter(path).map_err(|fault| fault.to_string())?;
    let before = store.len();
    for certificate in certificates {
        store.add(certificate.map_err(|fault| fault.to_string())?).map_err(|fault| fault.to_string())?;
    }
    if store.len() == before { Err("it holds no certificate".into()) } else { Ok(()) }
}

/// What lies at the bottom of an error: the layers above say only that something failed.
fn innermost(fault: &dyn std::error::Error) -> String {
    let mut deepest = fault;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

impl std::fmt::Display for RootsFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cannot take roots from {}: {}", self.path.display(), self.why)
    }
}

impl std::error::Error for RootsFault {}

#[cfg(test)]
mod tests;
