//! An answer that is an error, in OpenAI's shape.

use http::header::{ALLOW, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use serde_json::json;

use crate::plan::Plan;

/// Why a call is not answered as it hoped.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    message: String,
    param: Option<String>,
    code: Option<&'static str>,
    allow: Option<&'static str>,
    retry_after: Option<u64>,
}

impl Refusal {
    /// A request that makes no sense; `param` names the field or header at fault.
    pub(crate) fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        let param = Some(param.into());
        Self { param, message: message.into(), ..Self::simulated(StatusCode::BAD_REQUEST) }
    }

    /// A request whose body as a whole makes no sense.
    pub(crate) fn malformed(message: impl Into<String>) -> Self {
        Self { message: message.into(), ..Self::simulated(StatusCode::BAD_REQUEST) }
    }

    pub(crate) fn unknown_path(method: &http::Method, path: &str) -> Self {
        let message = format!("unknown request URL: {method} {path}");
        Self { message, code: Some("unknown_url"), ..Self::simulated(StatusCode::NOT_FOUND) }
    }

    pub(crate) fn unknown_model(model: &str) -> Self {
        let message = format!("the model `{model}` does not exist");
        let param = Some("model".to_owned());
        Self { message, param, code: Some("model_not_found"), ..Self::simulated(StatusCode::NOT_FOUND) }
    }

    pub(crate) fn wrong_method(method: &http::Method, path: &str, allow: &'static str) -> Self {
        let message = format!("{path} does not take {method}, only {allow}");
        let (code, allow) = (Some("method_not_allowed"), Some(allow));
        Self { message, code, allow, ..Self::simulated(StatusCode::METHOD_NOT_ALLOWED) }
    }

    pub(crate) fn too_large(limit: usize) -> Self {
        let message = format!("the body is larger than {limit} bytes");
        Self { message, ..Self::simulated(StatusCode::PAYLOAD_TOO_LARGE) }
    }

    /// The failure that was asked for, by header or by rate.
    pub(crate) fn simulated(status: StatusCode) -> Self {
        let code = (status == StatusCode::TOO_MANY_REQUESTS).then_some("rate_limit_exceeded");
        let message = format!("simulated answer {}", status.as_u16());
        Self { status, message, param: None, code, allow: None, retry_after: None }
    }

    /// Tells the client when to come back; none leaves what was there.
    pub(crate) fn retry_after(mut self, seconds: Option<u64>) -> Self {
        self.retry_after = seconds.or(self.retry_after);
        self
    }

    fn kind(&self) -> &'static str {
        match self.status.as_u16() {
            401 => "authentication_error",
            403 => "permission_error",
            429 => "rate_limit_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        }
    }
}

impl From<Refusal> for Plan {
    fn from(refusal: Refusal) -> Self {
        let error =
            json!({"message": refusal.message, "type": refusal.kind(), "param": refusal.param, "code": refusal.code});
        let mut plan = Self::json(&json!({"error": error}));
        if let Some(head) = &mut plan.head {
            head.status = refusal.status;
            if let Some(allow) = refusal.allow {
                head.headers.insert(ALLOW, HeaderValue::from_static(allow));
            }
            if let Some(seconds) = refusal.retry_after {
                head.headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
            }
        }
        plan
    }
}
