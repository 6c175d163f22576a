//! Which path means what.

use http::Method;
use kernel::error::Kind;
use kernel::{Error, ModelName, Operation, Origin, Result};
use serde_json::{Value, json};

use super::service::{Service, Services};
use super::{Machine, Visit};

/// What a request wants.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Call(Operation),
    Service(Service),
    Models,
    Model(String),
    Health,
    Ready,
}

/// Finds the target of a request.
pub(super) fn find(method: &Method, path: &str, services: &Services) -> Result<Target> {
    let (target, allowed) = match path {
        "/v1/chat/completions" => (Target::Call(Operation::Chat), Method::POST),
        "/v1/completions" => (Target::Call(Operation::Completion), Method::POST),
        "/v1/embeddings" => (Target::Call(Operation::Embedding), Method::POST),
        "/v1/models" => (Target::Models, Method::GET),
        "/health" => (Target::Health, Method::GET),
        "/ready" => (Target::Ready, Method::GET),
        _ => match path.strip_prefix("/v1/models/").filter(|name| !name.is_empty()) {
            Some(name) => (Target::Model(unescape(name)), Method::GET),
            None => match services.find(method, path) {
                Some(found) => return found.cloned().map(Target::Service),
                None => return Err(unknown(path)),
            },
        },
    };
    if *method == allowed || (allowed == Method::GET && *method == Method::HEAD) {
        return Ok(target);
    }
    let mut error =
        Error::new(Kind::WrongMethod, Origin::Caller, format!("{method} is not allowed here: use {allowed}."));
    error.cause = if allowed == Method::GET { "GET".into() } else { "POST".into() };
    Err(error)
}

fn unknown(path: &str) -> Error {
    let hint = match path {
        "/chat/completions" | "/completions" | "/embeddings" | "/models" => " The base URL ends in /v1.",
        _ => "",
    };
    let path: String = path.chars().take(200).collect();
    Error::new(Kind::UnknownPath, Origin::Caller, format!("There is nothing at `{path}`.{hint}"))
}

/// Undoes `%XX`; anything malformed stays as it is.
fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let escaped = (*byte == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        match escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(value) => {
                out.push(value);
                at += 3;
            }
            None => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The answer to `GET /v1/models`.
pub(super) fn models(machine: &Machine, visit: &Visit) -> Value {
    let shown = machine.roster.models.iter().filter(|(name, model)| !model.service && allowed(visit, name));
    let names = shown.map(|(name, _)| name);
    let data: Vec<Value> = names.map(|name| entry(name.as_str(), machine.created)).collect();
    json!({ "object": "list", "data": data })
}

/// The answer to `GET /v1/models/{name}`.
pub(super) fn model(machine: &Machine, visit: &Visit, name: &str) -> Result<Value> {
    let known = machine.roster.models.get_key_value(name);
    if known.is_some_and(|(name, model)| !model.service && allowed(visit, name)) {
        return Ok(entry(name, machine.created));
    }
    Err(unknown_model(name))
}

/// The refusal of a call to a model that does not exist.
pub(super) fn unknown_model(name: &str) -> Error {
    let name: String = name.chars().take(200).collect();
    let mut error = Error::new(
        Kind::UnknownModel,
        Origin::Caller,
        format!("The model `{name}` does not exist here. GET /v1/models lists the ones that do."),
    );
    error.field = Some("model".into());
    error
}

/// Whether the caller may call a model: others are not shown to it.
fn allowed(visit: &Visit, name: &ModelName) -> bool {
    visit.caller.as_ref().is_none_or(|caller| caller.terms.models.allows(name))
}

/// The refusal of a call to a model that is not for this caller.
pub(super) fn not_allowed(name: &ModelName) -> Error {
    let name: String = name.as_str().chars().take(200).collect();
    let message = format!("The model `{name}` is not one this key may call. GET /v1/models lists those it may.");
    let mut error = Error::new(Kind::Forbidden, Origin::Caller, message);
    error.field = Some("model".into());
    error
}

fn entry(name: &str, created: u64) -> Value {
    json!({ "id": name, "object": "model", "created": created, "owned_by": "sluice" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_has_its_target_and_its_method() {
        let services = Services::default();
        let find = |method: &Method, path: &str| find(method, path, &services);
        assert_eq!(find(&Method::POST, "/v1/chat/completions").unwrap(), Target::Call(Operation::Chat));
        assert_eq!(
            find(&Method::GET, "/v1/models/Qwen/Qwen2.5%2d7B").unwrap(),
            Target::Model("Qwen/Qwen2.5-7B".into())
        );
        assert_eq!(find(&Method::GET, "/v1/models/%zz%").unwrap(), Target::Model("%zz%".into()));
        assert_eq!(
            find(&Method::GET, "/v1/chat/completions").unwrap_err().message,
            "GET is not allowed here: use POST."
        );
        assert_eq!(
            find(&Method::POST, "/chat/completions").unwrap_err().message,
            "There is nothing at `/chat/completions`. The base URL ends in /v1."
        );
        assert_eq!(find(&Method::GET, "/v1/models/").unwrap_err().kind, Kind::UnknownPath);
    }
}
