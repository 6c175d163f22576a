//! Tokens that must not be let in, each beside one that is like it in all but the one fault, and is.

use serde_json::{Value, json};

use crate::issuer::{Issuer, Key, Way, text, token};

/// A token that is bad in one way.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) bad: String,
    /// The same without the fault.
    pub(crate) good: String,
}

/// Makes tokens of one issuer for one tenant at one time.
pub(crate) struct Maker<'a> {
    pub(crate) issuer: &'a Issuer,
    pub(crate) other: &'a Issuer,
    pub(crate) now: i64,
}

/// The four families: a key's id, the algorithm, the key.
fn families(issuer: &Issuer) -> [(&'static str, &'static str, &Key); 4] {
    [
        ("rsa", "RS256", &issuer.rsa),
        ("rsa", "PS256", &issuer.rsa),
        ("p256", "ES256", &issuer.p256),
        ("ed", "EdDSA", &issuer.ed),
    ]
}

impl Maker<'_> {
    pub(crate) fn claims(&self) -> Value {
        json!({
            "iss": self.issuer.name(), "aud": "sluice", "sub": "alice",
            "iat": self.now, "exp": self.now + 300,
        })
    }

    pub(crate) fn header(kid: &str, algorithm: &str) -> Value {
        json!({ "alg": algorithm, "typ": "JWT", "kid": kid })
    }

    /// A good one.
    pub(crate) fn good(&self) -> String {
        let header = Self::header("p256", "ES256");
        token(&header.to_string(), &self.claims().to_string(), &Way::With(&self.issuer.p256, "ES256"))
    }

    /// Signed properly, whatever it says.
    fn says(&self, header: &Value, claims: &Value) -> String {
        token(&header.to_string(), &claims.to_string(), &Way::With(&self.issuer.p256, "ES256"))
    }

    fn claiming(&self, change: impl FnOnce(&mut Value)) -> String {
        let mut claims = self.claims();
        change(&mut claims);
        self.says(&Self::header("p256", "ES256"), &claims)
    }

    fn heading(&self, change: impl FnOnce(&mut Value)) -> String {
        let mut header = Self::header("p256", "ES256");
        change(&mut header);
        self.says(&header, &self.claims())
    }

    pub(crate) fn all(&self) -> Vec<Case> {
        let mut cases = Vec::new();
        self.algorithms(&mut cases);
        self.headers(&mut cases);
        self.signatures(&mut cases);
        self.claims_of_all_kinds(&mut cases);
        self.forms(&mut cases);
        cases
    }

    fn add(&self, cases: &mut Vec<Case>, name: impl Into<String>, bad: String) {
        cases.push(Case { name: name.into(), bad, good: self.good() });
    }

    /// `none`, and public keys taken for secrets.
    fn algorithms(&self, cases: &mut Vec<Case>) {
        let claims = self.claims().to_string();
        for name in ["none", "None", "NONE", "nOnE", "", " none", "null"] {
            for kid in ["p256", "absent"] {
                let header = Self::header(kid, name).to_string();
                self.add(
                    cases,
                    format!("alg {name:?} for {kid}, no signature"),
                    token(&header, &claims, &Way::As(b"")),
                );
            }
        }
        let header = Self::header("p256", "none").to_string();
        let signed = token(&header, &claims, &Way::With(&self.issuer.p256, "ES256"));
        self.add(cases, "alg none with a real signature", signed);
        for algorithm in ["HS256", "HS384", "HS512", "hs256"] {
            for (i, secret) in self.issuer.rsa.as_secrets().iter().enumerate() {
                let header = Self::header("rsa", algorithm).to_string();
                self.add(
                    cases,
                    format!("{algorithm} with the public key, form {i}"),
                    token(&header, &claims, &Way::Shared(secret)),
                );
            }
        }
        let jwk = self.issuer.rsa.jwk("rsa").to_string();
        for algorithm in ["HS256", "RS256", "ES256"] {
            let header = Self::header("rsa", algorithm).to_string();
            self.add(
                cases,
                format!("{algorithm}, HMAC with the JWK"),
                token(&header, &claims, &Way::Shared(jwk.as_bytes())),
            );
            self.add(cases, format!("{algorithm}, HMAC with nothing"), token(&header, &claims, &Way::Shared(b"")));
        }
        // A key of one family, an algorithm of another, signed by the key's own.
        for (kid, own, key) in families(self.issuer) {
            for said in ["RS256", "PS256", "ES256", "ES384", "EdDSA", "RS1", "ES256K", "RSA-OAEP"] {
                if said != own {
                    let header = Self::header(kid, said).to_string();
                    self.add(cases, format!("{own} called {said}"), token(&header, &claims, &Way::With(key, own)));
                }
            }
        }
        let header = Self::header("rs-only", "PS256").to_string();
        let signed = token(&header, &claims, &Way::With(&self.issuer.rsa, "PS256"));
        let header = Self::header("rs-only", "RS256").to_string();
        let good = token(&header, &claims, &Way::With(&self.issuer.rsa, "RS256"));
        cases.push(Case { name: "PS256 with a key for RS256".into(), bad: signed, good });
    }

    /// Keys and places of keys in the header, and names of keys that are something else.
    fn headers(&self, cases: &mut Vec<Case>) {
        let own = Key::p256();
        let claims = self.claims().to_string();
        let mut with_own_key = |name: &str, more: Value| {
            for kid in ["p256", "mine"] {
                let mut header = Self::header(kid, "ES256");
                header.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
                let bad = token(&header.to_string(), &claims, &Way::With(&own, "ES256"));
                self.add(cases, format!("{name}, kid {kid}"), bad);
            }
        };
        with_own_key("jwk of the attacker", json!({ "jwk": own.jwk("mine") }));
        with_own_key("jku of the attacker", json!({ "jku": format!("{}/keys", self.other.name()) }));
        with_own_key("x5u of the attacker", json!({ "x5u": "https://evil.example/chain.pem" }));
        with_own_key("x5c of the attacker", json!({ "x5c": ["MIIB"] }));
        with_own_key("nothing but another key", json!({}));
        for member in ["jwk", "jku", "x5u", "x5c"] {
            let bad = self.heading(|header| header[member] = "https://a.example".into());
            self.add(cases, format!("{member} beside a good signature"), bad);
        }
        for crit in [json!(["exp"]), json!(["b64"]), json!([]), json!("exp")] {
            self.add(cases, format!("crit {crit}"), self.heading(|header| header["crit"] = crit.clone()));
        }
        self.add(cases, "b64 false", self.heading(|header| header["b64"] = false.into()));
        self.add(cases, "zip", self.heading(|header| header["zip"] = "DEF".into()));
        for typ in
            [json!("dpop+jwt"), json!("logout+jwt"), json!("application/"), json!("é+jwt-of-some-length"), json!(1)]
        {
            self.add(cases, format!("typ {typ}"), self.heading(|header| header["typ"] = typ.clone()));
        }
        for kid in [
            "../../../../dev/null",
            "/dev/null",
            "p256\u{0}",
            "P256",
            "p256 ",
            "' OR '1'='1",
            "x' UNION SELECT 'AA'--",
            "https://evil.example/keys",
            "file:///etc/passwd",
            "|/bin/sh",
            "$(id)",
            "",
        ] {
            let header = Self::header(kid, "ES256").to_string();
            self.add(cases, format!("kid {kid:?}, own key"), token(&header, &claims, &Way::With(&own, "ES256")));
            self.add(
                cases,
                format!("kid {kid:?}, empty secret"),
                token(&Self::header(kid, "HS256").to_string(), &claims, &Way::Shared(b"")),
            );
        }
        for kid in [json!(1), json!(null), json!(["p256"]), json!({ "p256": 1 })] {
            self.add(cases, format!("kid {kid}"), self.heading(|header| header["kid"] = kid.clone()));
        }
        let unnamed = self.heading(|header| drop(header.as_object_mut().unwrap().remove("kid")));
        // Without a kid the only key that fits is meant; RSA has two here.
        let mut header = Self::header("", "RS256");
        header.as_object_mut().unwrap().remove("kid");
        let bad = token(&header.to_string(), &claims, &Way::With(&self.issuer.rsa, "RS256"));
        cases.push(Case { name: "no kid, two keys that fit".into(), bad, good: unnamed });
    }

    /// Signatures that are none.
    fn signatures(&self, cases: &mut Vec<Case>) {
        let claims = self.claims().to_string();
        for (kid, algorithm, key) in families(self.issuer) {
            let header = Self::header(kid, algorithm).to_string();
            let signed = format!("{}.{}", text(&header), text(&claims));
            let good = key.sign(algorithm, signed.as_bytes());
            let twin = format!("{signed}.{}", text(&good));
            let mut flipped = good.clone();
            flipped[10] ^= 1;
            let mut add = |name: &str, bytes: &[u8]| {
                let bad = token(&header, &claims, &Way::As(bytes));
                cases.push(Case { name: format!("{algorithm}: {name}"), bad, good: twin.clone() });
            };
            add("a bit flipped", &flipped);
            add("all zero", &vec![0; good.len()]);
            add("all ones", &vec![0xff; good.len()]);
            add("empty", b"");
            add("cut off", &good[..good.len() - 1]);
            add("longer", &[&good[..], &[0]].concat());
            add("led by a zero", &[&[0], &good[..]].concat());
            let mut altered = self.claims();
            altered["sub"] = "mallory".into();
            let bad = format!("{}.{}.{}", text(&header), text(altered.to_string()), text(&good));
            cases.push(Case { name: format!("{algorithm}: claims swapped"), bad, good: twin.clone() });
            // Made with the same kind of key, but of somebody else.
            let stranger = match kid {
                "rsa" => &self.other.rsa,
                "p256" => &self.other.p256,
                _ => &self.other.ed,
            };
            let bad = token(&header, &claims, &Way::With(stranger, algorithm));
            cases.push(Case { name: format!("{algorithm}: another issuer's key"), bad, good: twin });
        }
        // ECDSA: zero and the order of the curve are no numbers for it, and DER is no form for it.
        let order = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
        let order: Vec<u8> = (0..64).step_by(2).map(|at| u8::from_str_radix(&order[at..at + 2], 16).unwrap()).collect();
        let header = Self::header("p256", "ES256").to_string();
        let signed = format!("{}.{}", text(&header), text(&claims));
        let good = self.issuer.p256.sign("ES256", signed.as_bytes());
        let (r, s) = good.split_at(32);
        let (zero, mut one) = ([0; 32], [0; 32]);
        one[31] = 1;
        for (name, r, s) in [
            ("r 0", &zero[..], s),
            ("s 0", r, &zero[..]),
            ("r n", &order, s),
            ("s n", r, &order),
            ("both n", &order, &order),
            ("r 1, s 1", &one, &one),
            ("swapped", s, r),
        ] {
            self.add(cases, format!("ES256: {name}"), token(&header, &claims, &Way::As(&[r, s].concat())));
        }
        let integer = |number: &[u8]| [&[2, 33, 0][..], number].concat();
        let der = [vec![0x30, 70], integer(r), integer(s)].concat();
        self.add(cases, "ES256: DER", token(&header, &claims, &Way::As(&der)));
        let header = Self::header("p384", "ES384").to_string();
        let bad = token(&header, &claims, &Way::With(&self.issuer.p256, "ES256"));
        let good = token(&header, &claims, &Way::With(&self.issuer.p384, "ES384"));
        cases.push(Case { name: "ES384 with a P-256 key".into(), bad, good });
    }

    /// Claims that are missing, wrong, or of the wrong kind.
    fn claims_of_all_kinds(&self, cases: &mut Vec<Case>) {
        let now = self.now;
        for name in ["iss", "aud", "exp", "iat"] {
            self.add(
                cases,
                format!("no {name}"),
                self.claiming(|claims| drop(claims.as_object_mut().unwrap().remove(name))),
            );
            for value in [json!(null), json!({}), json!([]), json!(true), json!("")] {
                self.add(cases, format!("{name} {value}"), self.claiming(|claims| claims[name] = value.clone()));
            }
        }
        for (name, value) in [
            ("exp", json!(now - 31)),
            ("exp", json!(0)),
            ("exp", json!(-1)),
            ("exp", json!(now.to_string())),
            ("exp", json!(1e300)),
            ("iat", json!(now + 120)),
            ("iat", json!(now + 400)),
            ("nbf", json!(now + 120)),
            ("nbf", json!("soon")),
            ("nbf", json!(null)),
            ("nbf", json!(1e300)),
            ("exp", json!(now - 40)),
            ("aud", json!("sluic")),
            ("aud", json!("Sluice")),
            ("aud", json!("sluice ")),
            ("aud", json!(["other"])),
            ("aud", json!(["sluice", 1])),
            ("aud", json!({ "sluice": true })),
            ("aud", json!([["sluice"]])),
            ("iss", json!("https://evil.example")),
            ("iss", json!(self.other.name())),
            ("iss", json!(format!("{}/", self.issuer.name()))),
            ("iss", json!(self.issuer.name().to_uppercase())),
            ("iss", json!([self.issuer.name()])),
            ("sub", json!("")),
            ("sub", json!("a\nb")),
            ("sub", json!("x".repeat(129))),
        ] {
            self.add(cases, format!("{name} {value}"), self.claiming(|claims| claims[name] = value.clone()));
        }
    }

    /// Texts that are no token.
    fn forms(&self, cases: &mut Vec<Case>) {
        let good = self.good();
        let parts: Vec<&str> = good.split('.').collect();
        let (header, claims, signature) = (parts[0], parts[1], parts[2]);
        let long = self.claiming(|claims| claims["pad"] = "x".repeat(8 << 10).into());
        self.add(cases, "longer than 8 KiB", long);
        for (name, bad) in [
            ("no signature", format!("{header}.{claims}")),
            ("an empty signature", format!("{header}.{claims}.")),
            ("no claims", format!("{header}..{signature}")),
            ("no header", format!(".{claims}.{signature}")),
            ("four parts", format!("{good}.{signature}")),
            ("five parts", format!("{header}.{claims}.{claims}.{claims}.{signature}")),
            ("padding", format!("{header}=.{claims}.{signature}")),
            ("padding behind", format!("{good}==")),
            ("a stray bit", stray(&good)),
            ("another alphabet", format!("{header}.{claims}+/.{signature}")),
            ("a blank inside", format!("{header}.{claims} .{signature}")),
            ("percent signs", format!("{header}.{claims}%2e{signature}")),
            ("cut off", good[..good.len() - 4].to_owned()),
            ("twice", format!("{good},{good}")),
        ] {
            self.add(cases, name, bad);
        }
        let way = Way::With(&self.issuer.p256, "ES256");
        let (header, claims) = (Self::header("p256", "ES256").to_string(), self.claims().to_string());
        for (name, header, claims) in [
            ("alg twice", r#"{"alg":"none","alg":"ES256","kid":"p256"}"#.to_owned(), claims.clone()),
            ("alg twice, escaped", r#"{"alg":"ES256","\u0061lg":"none","kid":"p256"}"#.to_owned(), claims.clone()),
            ("kid twice", r#"{"alg":"ES256","kid":"x","kid":"p256"}"#.to_owned(), claims.clone()),
            ("exp twice", header.clone(), claims.replacen('{', r#"{"exp":1,"#, 1)),
            ("iss twice", header.clone(), claims.replacen('{', r#"{"iss":"https://evil.example","#, 1)),
            ("sub twice", header.clone(), claims.replacen('{', r#"{"sub":"root","#, 1)),
            ("claims in a list", header.clone(), format!("[{claims}]")),
            ("claims and more", header.clone(), format!("{claims}{claims}")),
            ("claims that are no JSON", header.clone(), "iss=x".to_owned()),
            ("a header in a list", format!("[{header}]"), claims.clone()),
            ("a header that is no UTF-8", "{\"alg\":\"\u{fffd}\"}".to_owned(), claims.clone()),
        ] {
            self.add(cases, name, token(&header, &claims, &way));
        }
    }
}

/// The same token with a bit set that base64 does not use.
fn stray(good: &str) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let last = good.as_bytes()[good.len() - 1];
    let at = DIGITS.iter().position(|digit| *digit == last).unwrap();
    format!("{}{}", &good[..good.len() - 1], char::from(DIGITS[at + 1]))
}
