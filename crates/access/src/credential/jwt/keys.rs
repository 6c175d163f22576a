//! An issuer's public keys (RFC 7517), and the algorithms they may be used with.
//!
//! A key says what it can verify: its type, its curve, and its `alg` where it has one. A token only says which of that it
//! used. There is no secret key here at all, so nothing public can be taken for one.

use std::collections::HashMap;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519, EcdsaVerificationAlgorithm,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde::Deserialize;

use crate::credential::members::Members;

/// Bound: keys taken of one issuer; the first ones, should it have more. The large public providers have under ten.
const KEYS_MAX: usize = 64;
/// Bound: the smallest and largest RSA modulus, in bytes.
const MODULUS: std::ops::RangeInclusive<usize> = 256..=1024;

/// One row: a name of RFC 7518, and how such a signature is checked.
pub(super) struct Algorithm {
    name: &'static str,
    scheme: Scheme,
}

enum Scheme {
    Rsa(&'static RsaParameters),
    Ec(&'static EcdsaVerificationAlgorithm, &'static str),
    Ed25519,
}

/// All algorithms. `none` and the ones with shared secrets are not among them.
const ALGORITHMS: &[Algorithm] = &[
    Algorithm { name: "RS256", scheme: Scheme::Rsa(&RSA_PKCS1_2048_8192_SHA256) },
    Algorithm { name: "RS384", scheme: Scheme::Rsa(&RSA_PKCS1_2048_8192_SHA384) },
    Algorithm { name: "RS512", scheme: Scheme::Rsa(&RSA_PKCS1_2048_8192_SHA512) },
    Algorithm { name: "PS256", scheme: Scheme::Rsa(&RSA_PSS_2048_8192_SHA256) },
    Algorithm { name: "PS384", scheme: Scheme::Rsa(&RSA_PSS_2048_8192_SHA384) },
    Algorithm { name: "PS512", scheme: Scheme::Rsa(&RSA_PSS_2048_8192_SHA512) },
    Algorithm { name: "ES256", scheme: Scheme::Ec(&ECDSA_P256_SHA256_FIXED, "P-256") },
    Algorithm { name: "ES384", scheme: Scheme::Ec(&ECDSA_P384_SHA384_FIXED, "P-384") },
    Algorithm { name: "ES512", scheme: Scheme::Ec(&ECDSA_P521_SHA512_FIXED, "P-521") },
    Algorithm { name: "EdDSA", scheme: Scheme::Ed25519 },
    Algorithm { name: "Ed25519", scheme: Scheme::Ed25519 },
];

/// The row with this name, in exactly this spelling.
pub(super) fn algorithm(name: &str) -> Option<&'static Algorithm> {
    ALGORITHMS.iter().find(|algorithm| algorithm.name == name)
}

/// The keys of an issuer at one time.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Keys {
    named: HashMap<Box<str>, Vec<Key>>,
    unnamed: Vec<Key>,
}

/// One public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    material: Material,
    /// The only algorithm it is for, where it says so.
    only: Option<Box<str>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Material {
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
    Ec { curve: &'static str, point: Vec<u8> },
    Ed25519(Vec<u8>),
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Members>,
}

// === impl Keys ===

impl Keys {
    /// Reads a JWK set. Keys that cannot be used here (for encryption, of other types, too small) are passed over, as
    /// RFC 7517 §5 wants; `None` where it is no set, or nothing in it can be used.
    pub(super) fn read(document: &[u8]) -> Option<Self> {
        let document: Document = serde_json::from_slice(document).ok()?;
        let mut keys = Self::default();
        for jwk in document.keys.iter().take(KEYS_MAX) {
            let Some(key) = Key::read(jwk) else { continue };
            match jwk.text("kid") {
                Some(kid) => keys.named.entry(kid.into()).or_default().push(key),
                None => keys.unnamed.push(key),
            }
        }
        (!keys.named.is_empty() || !keys.unnamed.is_empty()).then_some(keys)
    }

    /// The key a token says it was signed with. One that names none means the only key that fits, if there is only one.
    pub(super) fn find(&self, kid: Option<&str>, algorithm: &Algorithm) -> Option<&Key> {
        let fits = |key: &&Key| key.fits(algorithm);
        match kid {
            Some(kid) => self.named.get(kid)?.iter().find(fits),
            None => {
                let mut fitting = self.named.values().flatten().chain(&self.unnamed).filter(fits);
                fitting.next().filter(|_| fitting.next().is_none())
            }
        }
    }

    /// Whether every key here is in `newer` too: what was verified with these still is.
    pub(super) fn all_in(&self, newer: &Self) -> bool {
        let named = |kid: &str, keys: &[Key]| {
            newer.named.get(kid).is_some_and(|newer| keys.iter().all(|key| newer.contains(key)))
        };
        self.named.iter().all(|(kid, keys)| named(kid, keys))
            && self.unnamed.iter().all(|key| newer.unnamed.contains(key))
    }
}

// === impl Key ===

impl Key {
    fn read(jwk: &Members) -> Option<Self> {
        let signs = jwk.get("use").is_none_or(|usage| usage == "sig");
        let verifies = jwk.get("key_ops").is_none() || jwk.texts("key_ops")?.contains(&"verify");
        // An issuer that shows its private key to everyone vouches for nothing with it.
        if !signs || !verifies || jwk.get("d").is_some() {
            return None;
        }
        let bytes = |name: &str| BASE64.decode(jwk.text(name)?).ok();
        let material = match jwk.text("kty")? {
            "RSA" => {
                let plain = |bytes: Vec<u8>| bytes.into_iter().skip_while(|byte| *byte == 0).collect::<Vec<u8>>();
                let (modulus, exponent) = (plain(bytes("n")?), plain(bytes("e")?));
                MODULUS.contains(&modulus.len()).then_some(Material::Rsa { modulus, exponent })?
            }
            "EC" => {
                let (curve, size) = match jwk.text("crv")? {
                    "P-256" => ("P-256", 32),
                    "P-384" => ("P-384", 48),
                    "P-521" => ("P-521", 66),
                    _ => return None,
                };
                let (x, y) = (bytes("x")?, bytes("y")?);
                let point = [&[4], &x[..], &y[..]].concat();
                (x.len() == size && y.len() == size).then_some(Material::Ec { curve, point })?
            }
            "OKP" if jwk.text("crv")? == "Ed25519" => Material::Ed25519(bytes("x").filter(|point| point.len() == 32)?),
            _ => return None,
        };
        let only = match jwk.get("alg") {
            None => None,
            Some(name) => Some(name.as_str()?.into()),
        };
        Some(Self { material, only })
    }

    fn fits(&self, algorithm: &Algorithm) -> bool {
        let same_type = match (&self.material, &algorithm.scheme) {
            (Material::Rsa { .. }, Scheme::Rsa(_)) | (Material::Ed25519(_), Scheme::Ed25519) => true,
            (Material::Ec { curve, .. }, Scheme::Ec(_, wanted)) => curve == wanted,
            _ => false,
        };
        same_type && self.only.as_ref().is_none_or(|only| **only == *algorithm.name)
    }

    /// Whether a signature is this key's over a text.
    pub(super) fn verifies(&self, algorithm: &Algorithm, text: &[u8], signature: &[u8]) -> bool {
        match (&self.material, &algorithm.scheme) {
            (Material::Rsa { modulus, exponent }, Scheme::Rsa(parameters)) => {
                RsaPublicKeyComponents { n: modulus, e: exponent }.verify(parameters, text, signature).is_ok()
            }
            (Material::Ec { point, .. }, Scheme::Ec(scheme, _)) => {
                UnparsedPublicKey::new(*scheme, point).verify(text, signature).is_ok()
            }
            (Material::Ed25519(point), Scheme::Ed25519) => {
                UnparsedPublicKey::new(&ED25519, point).verify(text, signature).is_ok()
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn keys(keys: serde_json::Value) -> Option<Keys> {
        Keys::read(json!({ "keys": keys }).to_string().as_bytes())
    }

    #[test]
    fn keys_that_cannot_be_used_are_passed_over_and_the_rest_are_taken() {
        let (small, large) = (BASE64.encode([0xff; 128]), BASE64.encode([0xff; 256]));
        let point = BASE64.encode([1; 32]);
        let unusable = json!([
            { "kty": "oct", "k": "AAAA", "kid": "secret" },
            { "kty": "RSA", "n": small, "e": "AQAB" },
            { "kty": "RSA", "n": large, "e": "AQAB", "use": "enc" },
            { "kty": "RSA", "n": large, "e": "AQAB", "key_ops": ["encrypt"] },
            { "kty": "RSA", "n": large, "e": "AQAB", "d": "AQAB" },
            { "kty": "EC", "crv": "P-256", "x": "AQ", "y": point },
            { "kty": "EC", "crv": "secp256k1", "x": point, "y": point },
            { "kty": "OKP", "crv": "X25519", "x": point },
            { "kty": "PQC" },
        ]);
        assert_eq!(keys(unusable.clone()), None);
        let mut more = unusable.as_array().unwrap().clone();
        more.push(json!({ "kty": "OKP", "crv": "Ed25519", "x": point, "kid": "a" }));
        let keys = keys(more.into()).unwrap();
        let ed = algorithm("EdDSA").unwrap();
        assert!(keys.find(Some("a"), ed).is_some() && keys.find(None, ed).is_some());
        assert!(keys.find(Some("b"), ed).is_none() && keys.find(Some("a"), algorithm("ES256").unwrap()).is_none());
    }

    #[test]
    fn a_token_without_kid_means_the_only_key_that_fits() {
        let point = |byte: u8| BASE64.encode([byte; 32]);
        let ed = |byte, kid: &str| json!({ "kty": "OKP", "crv": "Ed25519", "x": point(byte), "kid": kid });
        let (one, two) = (keys(json!([ed(1, "a")])).unwrap(), keys(json!([ed(1, "a"), ed(2, "b")])).unwrap());
        let ed = algorithm("Ed25519").unwrap();
        assert!(one.find(None, ed).is_some() && two.find(None, ed).is_none());
        assert!(one.all_in(&two) && !two.all_in(&one) && one.all_in(&one));
    }

    #[test]
    fn no_algorithm_has_another_spelling_or_a_shared_secret() {
        for name in ["none", "None", "NONE", "nOnE", "HS256", "HS512", "rs256", "RS256 ", "", "ES256K", "RSA-OAEP"] {
            assert!(algorithm(name).is_none(), "{name}");
        }
    }
}
