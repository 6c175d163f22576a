//! Errors as OpenAI clients expect them: `{"error":{"message","type","param","code"}}`.

use bytes::Bytes;
use kernel::Error;
use kernel::error::Kind;
use serde_json::json;

/// The `type` and `code` of a kind.
const fn words(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::Invalid => ("invalid_request_error", "invalid_request"),
        Kind::Unauthenticated => ("invalid_request_error", "invalid_api_key"),
        Kind::Forbidden => ("permission_error", "not_allowed"),
        Kind::UnknownModel => ("invalid_request_error", "model_not_found"),
        Kind::UnknownPath => ("invalid_request_error", "unknown_url"),
        Kind::WrongMethod => ("invalid_request_error", "method_not_allowed"),
        Kind::Waited => ("timeout_error", "queue_timeout"),
        Kind::SlowRequest => ("timeout_error", "request_timeout"),
        Kind::TooLarge => ("invalid_request_error", "request_too_large"),
        Kind::HeadTooLarge => ("invalid_request_error", "headers_too_large"),
        Kind::OverBudget => ("insufficient_quota", "budget_exceeded"),
        Kind::Limited => ("rate_limit_error", "rate_limit_exceeded"),
        Kind::Unavailable => ("server_error", "no_capacity"),
        Kind::BadUpstream => ("server_error", "bad_upstream"),
        Kind::UpstreamTimeout => ("timeout_error", "upstream_timeout"),
        Kind::Cancelled => ("server_error", "cancelled"),
        Kind::Internal => ("server_error", "internal_error"),
    }
}

/// The body of an error response.
pub fn body(error: &Error) -> Bytes {
    let (kind, code) = words(error.kind);
    json!({ "error": { "message": error.message, "type": kind, "param": error.field, "code": code } })
        .to_string()
        .into()
}

/// The last event of a stream that breaks off: clients raise it, instead of taking the answer for complete.
pub fn event(error: &Error) -> Bytes {
    let body = body(error);
    [b"data: ", &body[..], b"\n\n"].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_its_field() {
        let error = Error::invalid(Some("model"), "no");
        assert_eq!(
            body(&error),
            r#"{"error":{"message":"no","type":"invalid_request_error","param":"model","code":"invalid_request"}}"#
        );
    }

    #[test]
    fn an_event_is_one_whole_event() {
        assert!(event(&Error::invalid(None, "a\nb")).ends_with(b"}}\n\n"));
    }
}
