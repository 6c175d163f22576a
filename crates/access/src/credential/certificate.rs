//! Certificates that clients show on the connection. TLS has verified them; here is asked whose they are.

use aws_lc_rs::digest::{SHA256, digest};
use kernel::error::Kind as ErrorKind;
use kernel::{Error, Origin};
use tenancy::CertificateName;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Desk, Found, Shown, refused, rejected, seconds};

/// Bound: names looked at in one certificate.
const NAMES_MAX: usize = 32;

/// A client's certificate, read once for its connection.
#[derive(Debug, PartialEq, Eq)]
pub struct Certificate {
    /// What it is known by: the fingerprint first, as it is the most exact.
    names: Vec<CertificateName>,
    /// When it ends, in seconds since 1970. A connection may last longer.
    until: i64,
}

pub(super) fn find<'a>(shown: Shown<'a>, desk: Desk<'a>) -> Found<'a> {
    let Some(certificate) = &shown.peer.certificate else { return Found::Absent };
    let owner = desk.directory.identities().certificate(&certificate.names);
    // Where every client has a certificate and only some stand for a tenant, keys and tokens say whose a call is.
    let alone = shown.bearer.or(shown.plain).is_none() && !super::signature::is_there(shown.head);
    match owner {
        Some(_) if certificate.until <= seconds() => {
            Found::Refused(refused("The client certificate has expired while its connection was open: connect anew."))
        }
        // The certificate says who; whether it may be let in says the directory of today.
        Some(caller) => match desk.directory.again(caller) {
            Ok(caller) => Found::Known(caller, None),
            Err(why) => Found::Refused(rejected(why)),
        },
        None if alone && shown.tenant.is_none() => {
            let mut error = Error::new(
                ErrorKind::Unauthenticated,
                Origin::Caller,
                "The client certificate is genuine, but belongs to no tenant here: list it under `certificates`.",
            );
            error.cause = "unknown_certificate".into();
            Found::Refused(error)
        }
        None => Found::Absent,
    }
}

impl Certificate {
    /// Reads the end of a verified chain; `None` where it cannot be read here.
    pub(crate) fn read(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let fingerprint: String = digest(&SHA256, der).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let mut names = vec![CertificateName::Fingerprint(fingerprint)];
        let alternative = certificate.subject_alternative_name().ok().flatten();
        let listed = alternative.iter().flat_map(|extension| &extension.value.general_names);
        names.extend(listed.take(NAMES_MAX).filter_map(|name| match name {
            GeneralName::URI(uri) => Some(CertificateName::San((*uri).to_owned())),
            GeneralName::DNSName(name) => Some(CertificateName::Dns((*name).to_owned()).plain()),
            _ => None,
        }));
        Some(Self { names, until: certificate.validity().not_after.timestamp() })
    }
}
