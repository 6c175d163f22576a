//! Who may use the admin API: whoever shows its token.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use kernel::settings::Secret;

use super::{Plane, refusal};

/// A new token: 256 bits of chance, in hexadecimal.
///
/// # Errors
/// When the system gives no randomness.
pub fn new_token() -> std::io::Result<String> {
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
    Ok(bytes.iter().fold(String::with_capacity(64), |text, byte| text + &format!("{byte:02x}")))
}

/// Lets a request pass that shows the token of the machine in place.
pub(super) async fn guard(State(plane): State<Arc<Plane>>, request: Request, next: Next) -> Response {
    let machine = plane.door.machine();
    let Some(token) = &machine.admin_token else {
        let message =
            "The admin API is closed: no `admin.token` is configured, and none can be kept in the data directory.";
        return refusal(StatusCode::SERVICE_UNAVAILABLE, "admin_closed", message);
    };
    let shown = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| Secret::new(token.trim()))
    });
    let message = match shown {
        // Secrets compare in constant time.
        Some(shown) if shown == *token => return next.run(request).await,
        Some(_) => "The admin token is not the right one.",
        None => "Send the admin token as `Authorization: Bearer <token>`.",
    };
    let mut refused = refusal(StatusCode::UNAUTHORIZED, "invalid_admin_token", message);
    refused.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    refused
}
