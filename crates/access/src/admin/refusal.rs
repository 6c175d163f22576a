//! Why the admin API does not do what it is asked: `{"error":{"message","code","field"}}`.

use axum::Json;
use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tenancy::Refused;

/// In how many seconds a store that is away or busy may be asked again.
const SOON: &str = "5";

/// A refusal: what is wrong and how to mend it.
#[derive(Debug)]
pub struct Refusal {
    /// The status of the answer.
    pub status: StatusCode,
    /// One word for programs.
    pub code: &'static str,
    /// For people.
    pub message: String,
    /// The field of the body or query at fault, by its path.
    pub field: Option<String>,
}

impl Refusal {
    /// A refusal without a field.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), field: None }
    }

    /// 400: a field is not as it should be.
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        let field = Some(field.into()).filter(|field| !field.is_empty());
        Self { status: StatusCode::BAD_REQUEST, code: "invalid", message: message.into(), field }
    }

    /// 404. Says nothing of whose it is: somebody else's and nobody's look the same.
    pub fn missing(what: &'static str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", format!("There is no such {what}."))
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Invalid { field, message } => Self::invalid(field, message),
            Refused::Missing(what) => Self::missing(what),
            Refused::Taken { field, message } => {
                Self { field: Some(field.to_owned()), ..Self::new(StatusCode::CONFLICT, "taken", message) }
            }
            Refused::Conflict(message) => Self::new(StatusCode::CONFLICT, "conflict", message),
            Refused::Declared(what) => Self::new(
                StatusCode::CONFLICT,
                "declared_in_config",
                format!(
                    "This {what} is declared in the config file: change it there, Sluice reads it again by itself."
                ),
            ),
            Refused::Changed => Self::new(
                StatusCode::PRECONDITION_FAILED,
                "changed",
                "It was changed by somebody else since you read it: read it again, and send its new `etag`.",
            ),
            Refused::Down(why) => {
                tracing::warn!(%why, "the admin API could not reach the store");
                Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "store_down",
                    "The store cannot be reached, or had no time for this, so nothing was changed. Calls go on with what is known. Try again in a moment.",
                )
            }
            Refused::Broken(why) => {
                tracing::error!(%why, "the admin API could not use the store");
                Self::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "store_broken",
                    "The store did not take it. The operator's log says why.",
                )
            }
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = match self.field {
            Some(field) => json!({ "error": { "message": self.message, "code": self.code, "field": field } }),
            None => json!({ "error": { "message": self.message, "code": self.code } }),
        };
        let mut response = (self.status, Json(body)).into_response();
        let header = match self.status {
            StatusCode::UNAUTHORIZED => Some((WWW_AUTHENTICATE, "Bearer")),
            StatusCode::SERVICE_UNAVAILABLE => Some((RETRY_AFTER, SOON)),
            _ => None,
        };
        if let Some((name, value)) = header {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_finds_the_store_away_or_busy_is_told_when_to_try_again() {
        let header = |refused: Refused| Refusal::from(refused).into_response().headers().get(RETRY_AFTER).cloned();
        assert_eq!(header(Refused::Down("report: no answer within 60000 ms".into())).unwrap(), "5");
        assert_eq!(header(Refused::Missing("tenant")), None);
    }
}
