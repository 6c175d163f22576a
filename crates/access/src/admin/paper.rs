//! What usage, invoices and balances have in common: forms of an answer, cursors, whose things they are about.

use axum::http::HeaderValue;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, HeaderName};
use axum::response::{IntoResponse, Response};
use kernel::store::Fault;
use kernel::store::ledger::PostingId;
use kernel::{Currency, TenantId, Timestamp};
use tenancy::Refused;
use tenancy::invoice::{Invoice, Trouble};
use uuid::Uuid;

use super::route::Query;
use super::{Asked, Plane, Refusal};

pub(super) const FORMAT_CSV: Query = Query { name: "format", about: "`json` (default) or `csv`." };

/// Where the next page of a table begins; JSON says it in its body.
const NEXT: HeaderName = HeaderName::from_static("x-next");

/// The tenant in the path, which must be there.
pub(super) async fn known(plane: &Plane, asked: &Asked) -> Result<TenantId, Refusal> {
    let tenant = asked.tenant();
    plane.register.tenant(&tenant).await?;
    Ok(tenant)
}

/// An invoice of a tenant. That of another looks like none.
pub(super) async fn invoice(plane: &Plane, tenant: &TenantId, id: &str) -> Result<Invoice, Refusal> {
    let found = plane.books.invoice(id).await?.filter(|invoice| invoice.tenant == tenant.as_str());
    found.ok_or_else(|| Refusal::missing("invoice"))
}

/// In which form an answer is wanted; the first of `forms` by default.
pub(super) fn format(asked: &Asked, forms: &[&'static str]) -> Result<&'static str, Refusal> {
    let wanted = asked.query("format").or(forms.first().copied()).unwrap_or_default();
    let found = forms.iter().find(|form| **form == wanted).copied();
    found.ok_or_else(|| Refusal::invalid("format", format!("must be one of {}", forms.join(", "))))
}

/// A table as a file.
pub(super) fn csv(table: String, name: &str) -> Response {
    let safe: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || "-._".contains(c) { c } else { '_' }).collect();
    let mut response = ([(CONTENT_TYPE, "text/csv; charset=utf-8")], table).into_response();
    if let Ok(value) = HeaderValue::from_str(&format!("attachment; filename=\"{safe}.csv\"")) {
        response.headers_mut().insert(CONTENT_DISPOSITION, value);
    }
    response
}

/// Says where the next page of a table begins.
pub(super) fn next(response: &mut Response, cursor: Option<&str>) {
    if let Some(value) = cursor.and_then(|cursor| HeaderValue::from_str(cursor).ok()) {
        response.headers_mut().insert(NEXT, value);
    }
}

/// The currency that is asked for, if one is.
pub(super) fn currency(asked: &Asked) -> Result<Option<Currency>, Refusal> {
    let read = |text: &str| {
        Currency::parse(text)
            .ok_or_else(|| Refusal::invalid("currency", "must be a currency code of three letters, as in usd"))
    };
    asked.query("currency").map(read).transpose()
}

/// Where a list of postings goes on.
pub(super) fn cursor(at: Timestamp, id: PostingId) -> String {
    format!("{}.{id}", at.millis())
}

/// Reads what [`cursor`] writes.
pub(super) fn read_cursor(text: &str) -> Result<(Timestamp, PostingId), Refusal> {
    let parts = text.split_once('.').and_then(|(at, id)| Some((at.parse().ok()?, Uuid::parse_str(id).ok()?)));
    let (at, id) = parts.ok_or_else(|| Refusal::invalid("after", "must be the `next` of the page before"))?;
    Ok((Timestamp(at), PostingId(id)))
}

/// What a store did not do.
pub(super) fn fault(fault: Fault) -> Refusal {
    Refused::from(Trouble::from(fault)).into()
}

impl From<Trouble> for Refusal {
    fn from(trouble: Trouble) -> Self {
        Refused::from(trouble).into()
    }
}
