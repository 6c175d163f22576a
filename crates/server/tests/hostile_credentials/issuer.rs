//! An issuer with keys of every family, and tokens made with any of them, good or bad.

use std::time::Duration;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    self, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use testkit::{Plan, Script, Upstream};

/// One of the issuer's keys.
pub(crate) enum Key {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

/// How a token is signed.
pub(crate) enum Way<'a> {
    With(&'a Key, &'a str),
    /// HMAC with this as the secret.
    Shared(&'a [u8]),
    /// These bytes are the signature.
    As(&'a [u8]),
}

pub(crate) struct Issuer {
    pub(crate) rsa: Key,
    pub(crate) p256: Key,
    pub(crate) p384: Key,
    pub(crate) ed: Key,
    /// Its public keys, as it gives them.
    keys: String,
    pub(crate) server: Upstream,
}

pub(crate) fn text(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Key {
    pub(crate) fn rsa() -> Self {
        Self::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap())
    }

    pub(crate) fn p256() -> Self {
        Self::Ec(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    pub(crate) fn p384() -> Self {
        Self::Ec(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap())
    }

    pub(crate) fn ed() -> Self {
        Self::Ed(Ed25519KeyPair::generate().unwrap())
    }

    /// The public key as a JWK.
    pub(crate) fn jwk(&self, kid: &str) -> Value {
        match self {
            Self::Rsa(pair) => {
                let (n, e) = components(pair.public_key().as_ref());
                json!({ "kty": "RSA", "kid": kid, "use": "sig", "n": text(n), "e": text(e) })
            }
            Self::Ec(pair) => {
                let point = pair.public_key().as_ref();
                let half = (point.len() - 1) / 2;
                let curve = if half == 32 { "P-256" } else { "P-384" };
                let (x, y) = (text(&point[1..=half]), text(&point[half + 1..]));
                json!({ "kty": "EC", "crv": curve, "kid": kid, "x": x, "y": y })
            }
            Self::Ed(pair) => {
                json!({ "kty": "OKP", "crv": "Ed25519", "kid": kid, "x": text(pair.public_key()) })
            }
        }
    }

    /// The public key in the forms a careless verifier would take for a secret.
    pub(crate) fn as_secrets(&self) -> Vec<Vec<u8>> {
        let Self::Rsa(pair) = self else { return Vec::new() };
        let spki = AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'_>>::as_der(pair.public_key()).unwrap();
        let body = base64::engine::general_purpose::STANDARD.encode(spki.as_ref());
        let lines: Vec<&str> = body.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"));
        let pkcs1 = pair.public_key().as_ref().to_vec();
        let modulus = components(&pkcs1).0.to_vec();
        vec![pem.trim_end().into(), pem.into_bytes(), spki.as_ref().to_vec(), pkcs1, modulus]
    }

    pub(crate) fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(pair) => {
                let padding: &'static dyn signature::RsaEncoding = match algorithm {
                    "RS384" => &signature::RSA_PKCS1_SHA384,
                    "RS512" => &signature::RSA_PKCS1_SHA512,
                    "PS256" => &signature::RSA_PSS_SHA256,
                    "PS384" => &signature::RSA_PSS_SHA384,
                    "PS512" => &signature::RSA_PSS_SHA512,
                    _ => &signature::RSA_PKCS1_SHA256,
                };
                let mut signed = vec![0; pair.public_modulus_len()];
                pair.sign(padding, &random, message, &mut signed).unwrap();
                signed
            }
            Self::Ec(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Self::Ed(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }
}

/// Modulus and exponent of an `RSAPublicKey` (RFC 8017 A.1.1).
fn components(der: &[u8]) -> (&[u8], &[u8]) {
    fn value(der: &[u8]) -> (&[u8], &[u8]) {
        let (length, head) = match der[1] {
            0x82 => (usize::from(der[2]) << 8 | usize::from(der[3]), 4),
            0x81 => (usize::from(der[2]), 3),
            short => (usize::from(short), 2),
        };
        (&der[head..head + length], &der[head + length..])
    }
    let (n, rest) = value(value(der).0);
    (n.strip_prefix(&[0]).unwrap_or(n), value(rest).0)
}

/// A token of this header and these claims, as they stand.
pub(crate) fn token(header: &str, claims: &str, way: &Way<'_>) -> String {
    let signed = format!("{}.{}", text(header), text(claims));
    let signature = match way {
        Way::With(key, algorithm) => key.sign(algorithm, signed.as_bytes()),
        Way::Shared(secret) => {
            hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), signed.as_bytes()).as_ref().to_vec()
        }
        Way::As(bytes) => bytes.to_vec(),
    };
    format!("{signed}.{}", text(signature))
}

impl Issuer {
    /// Starts one that answers discovery and gives its keys.
    pub(crate) fn start() -> Self {
        let (rsa, p256, p384, ed) = (Key::rsa(), Key::p256(), Key::p384(), Key::ed());
        let mut only = rsa.jwk("rs-only");
        only["alg"] = "RS256".into();
        let keys =
            json!({ "keys": [rsa.jwk("rsa"), p256.jwk("p256"), p384.jwk("p384"), ed.jwk("ed"), only] }).to_string();
        let server = Upstream::start(Plan::made(|_| Script::json(404, "{}")));
        let issuer = Self { rsa, p256, p384, ed, keys, server };
        issuer.answers(Duration::ZERO);
        issuer
    }

    /// Answers whatever it is asked, so late.
    pub(crate) fn answers(&self, late: Duration) {
        let keys = self.keys.clone();
        self.server.on_probe(Plan::made(move |request| {
            let host = request.header("host").unwrap_or_default();
            let answer = match request.path() {
                "/.well-known/openid-configuration" => {
                    let issuer = format!("http://{host}");
                    Script::json(200, json!({ "issuer": issuer, "jwks_uri": format!("{issuer}/keys") }).to_string())
                }
                "/keys" => Script::json(200, keys.clone()),
                _ => Script::json(404, "{}"),
            };
            Script::new().pause(late).then(answer)
        }));
    }

    /// What its tokens say in `iss`.
    pub(crate) fn name(&self) -> String {
        self.server.url()
    }
}
