//! Signed requests, made by hand from RFC 9421 and not by the code that verifies them, so that both cannot be wrong
//! alike.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

pub(crate) const BODY: &str = r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;

/// A signed request, each part of which a test may bend.
#[derive(Clone)]
pub(crate) struct Signed {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) host: String,
    /// The body that is sent.
    pub(crate) body: String,
    /// What is signed: names and values.
    pub(crate) covered: Vec<(String, String)>,
    /// The parameters as they are sent and signed.
    pub(crate) parameters: String,
    pub(crate) label: String,
    pub(crate) secret: Vec<u8>,
    /// Sent beside the rest.
    pub(crate) more: Vec<(String, String)>,
    /// What is done to the list as it is sent, after it was signed.
    pub(crate) sent: fn(String) -> String,
    /// What is done to the signature's bytes.
    pub(crate) tag: fn(Vec<u8>) -> Vec<u8>,
}

pub(crate) fn digest_of(body: &str) -> String {
    format!("sha-256=:{}:", STANDARD.encode(digest(&SHA256, body.as_bytes())))
}

/// The parameters of a good signature.
pub(crate) fn parameters(key: &str, nonce: &str, created: i64, expires: i64) -> String {
    format!(r#";created={created};expires={expires};nonce="{nonce}";keyid="{key}";alg="hmac-sha256""#)
}

impl Signed {
    pub(crate) fn post(secret: &str, parameters: String) -> Self {
        let (method, target, host) = ("POST", "/v1/chat/completions", "localhost");
        let covered = [
            ("@method", method),
            ("@authority", host),
            ("@path", target),
            ("@query", "?"),
            ("content-digest", &digest_of(BODY)),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self {
            method: method.into(),
            target: target.into(),
            host: host.into(),
            body: BODY.into(),
            covered: covered.into(),
            parameters,
            label: "sluice".into(),
            secret: secret.into(),
            more: vec![("content-digest".into(), digest_of(BODY))],
            sent: |list| list,
            tag: |tag| tag,
        }
    }

    pub(crate) fn value(&mut self, name: &str) -> &mut String {
        self.covered.iter_mut().find(|(known, _)| known == name).map(|(_, value)| value).unwrap()
    }

    pub(crate) fn uncover(&mut self, name: &str) {
        self.covered.retain(|(known, _)| known != name);
    }

    fn list(&self) -> String {
        let names: Vec<String> = self.covered.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        format!("({}){}", names.join(" "), self.parameters)
    }

    pub(crate) fn headers(&self) -> Vec<(String, String)> {
        let mut base = String::new();
        for (name, value) in &self.covered {
            base.push_str(&format!("\"{name}\": {value}\n"));
        }
        base.push_str(&format!("\"@signature-params\": {}", self.list()));
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &self.secret), base.as_bytes()).as_ref().to_vec();
        let tag = STANDARD.encode((self.tag)(tag));
        let mut headers = vec![
            ("host".into(), self.host.clone()),
            ("signature-input".into(), format!("{}={}", self.label, (self.sent)(self.list()))),
            ("signature".into(), format!("{}=:{tag}:", self.label)),
        ];
        headers.extend(self.more.iter().cloned());
        headers
    }

    /// The request as it goes out.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let headers = self.headers();
        let headers: Vec<(&str, &str)> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .chain([("connection", "close")])
            .collect();
        testkit::request_bytes(&self.method, &self.target, &headers, &self.body)
    }
}
