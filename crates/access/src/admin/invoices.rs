//! Invoices: made, issued, shown, and reckoned once more.

use std::sync::Arc;

use axum::Json;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use kernel::{Currency, Money, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tenancy::invoice::print::{self, Language};
use tenancy::invoice::{Day, Invoice, Month, Period};
use tenancy::{rerate, when};

use super::paper;
use super::route::{Answering, Method, Pace, Query, Route, Shape, Who};
use super::{Asked, Plane, Refusal, schema};

pub(super) const ROUTES: &[Route] = &[
    Route {
        method: Method::Get,
        path: "/admin/v1/tenants/{tenant}/invoices",
        who: Who::Reader,
        pace: Pace::Report,
        about: "A tenant's issued invoices, in order of their numbers, without their lines.",
        query: &[],
        takes: None,
        gives: (
            200,
            Some(Shape { name: "Invoices", schema: |generator| schema::list_of::<Head>(generator, "invoices") }),
        ),
        handler: list,
    },
    Route {
        method: Method::Post,
        path: "/admin/v1/tenants/{tenant}/invoices",
        who: Who::Operator,
        pace: Pace::Report,
        about: "Issues an invoice: 201; 200 where it was issued before, 204 where there is nothing to put on it.",
        query: &[],
        takes: Some(Shape { name: "NewInvoice", schema: schema::of::<Wanted> }),
        gives: (201, Some(INVOICE)),
        handler: issue,
    },
    Route {
        method: Method::Get,
        path: "/admin/v1/tenants/{tenant}/draft",
        who: Who::Reader,
        pace: Pace::Report,
        about: "An invoice as it would be issued now, of this month unless said otherwise.",
        query: &[
            Query { name: "month", about: "Of this month, as in 2026-11." },
            Query { name: "from", about: "The first day, as in 2026-11-25; with `until`." },
            Query { name: "until", about: "The day after the last." },
            Query { name: "currency", about: "In this currency; default: that of the tenant's plan." },
            FORMAT,
            LANG,
        ],
        takes: None,
        gives: (200, Some(INVOICE)),
        handler: draft,
    },
    Route {
        method: Method::Get,
        path: "/admin/v1/tenants/{tenant}/invoices/{invoice}",
        who: Who::Reader,
        pace: Pace::Report,
        about: "An issued invoice.",
        query: &[FORMAT, LANG],
        takes: None,
        gives: (200, Some(INVOICE)),
        handler: show,
    },
    Route {
        method: Method::Post,
        path: "/admin/v1/tenants/{tenant}/invoices/{invoice}/verify",
        who: Who::Admin,
        pace: Pace::Report,
        about: "Reckons an issued invoice once more, from its charges, by other code; says where it differs.",
        query: &[],
        takes: None,
        gives: (200, Some(Shape { name: "Verdict", schema: schema::anything })),
        handler: verify,
    },
];

const INVOICE: Shape = Shape { name: "Invoice", schema: schema::anything };
const FORMAT: Query = Query { name: "format", about: "`json` (default), `csv`, or `html` to print." };
const LANG: Query = Query { name: "lang", about: "For HTML: `en` (default) or `zh`." };
/// The page needs its own style, and nothing else from anywhere.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";

/// Which invoice is wanted.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// Of this month, as in `2026-11`; instead of `from` and `until`.
    month: Option<String>,
    /// The first day, as in `2026-11-01`.
    from: Option<String>,
    /// The day after the last.
    until: Option<String>,
    /// In this currency; default: that of the tenant's plan.
    currency: Option<Currency>,
}

/// An invoice without its lines.
#[derive(Serialize, JsonSchema)]
struct Head {
    /// Its number.
    id: Option<String>,
    /// The first day.
    from: String,
    /// The day after the last.
    until: String,
    /// When it was issued.
    issued: Option<String>,
    /// In which currency.
    currency: Currency,
    /// What is to be paid.
    total: Money,
    /// How many lines it has.
    lines: usize,
}

fn list(plane: Arc<Plane>, asked: Asked) -> Answering {
    Box::pin(async move {
        let tenant = paper::known(&plane, &asked).await?;
        let heads: Vec<_> = plane.books.issued(&tenant).await?.iter().map(head).collect();
        Ok(Json(json!({ "invoices": heads })).into_response())
    })
}

fn issue(plane: Arc<Plane>, asked: Asked) -> Answering {
    Box::pin(async move {
        let tenant = paper::known(&plane, &asked).await?;
        let wanted: Wanted = asked.body()?;
        let period = period(wanted.month.as_deref(), wanted.from.as_deref(), wanted.until.as_deref())?;
        let period =
            period.ok_or_else(|| Refusal::invalid("month", "say of which month, or `from` when `until` when"))?;
        let issued = plane.books.issue(&tenant, period, wanted.currency, Timestamp::now()).await?;
        let Some(issued) = issued else { return Ok(StatusCode::NO_CONTENT.into_response()) };
        let status = if issued.new { StatusCode::CREATED } else { StatusCode::OK };
        if issued.new {
            asked.tell("invoice issued", issued.invoice.id.as_deref().unwrap_or_default(), tenant.as_str());
        }
        Ok((status, Json(issued.invoice)).into_response())
    })
}

fn draft(plane: Arc<Plane>, asked: Asked) -> Answering {
    Box::pin(async move {
        let tenant = paper::known(&plane, &asked).await?;
        let period = period(asked.query("month"), asked.query("from"), asked.query("until"))?;
        let period = period.unwrap_or_else(|| Day::of(Timestamp::now()).month().period());
        let currency = paper::currency(&asked)?;
        let invoice = plane.books.draft(&tenant, period, currency).await?;
        printed(&asked, &invoice)
    })
}

fn show(plane: Arc<Plane>, asked: Asked) -> Answering {
    Box::pin(async move {
        let invoice = paper::invoice(&plane, &asked.tenant(), asked.parameter("invoice")).await?;
        printed(&asked, &invoice)
    })
}

fn verify(plane: Arc<Plane>, asked: Asked) -> Answering {
    Box::pin(async move {
        let id = asked.parameter("invoice");
        paper::invoice(&plane, &asked.tenant(), id).await?;
        Ok(Json(rerate::verify(&plane.books, id).await?).into_response())
    })
}

/// In the form that is asked for.
fn printed(asked: &Asked, invoice: &Invoice) -> Result<Response, Refusal> {
    let language = asked.query("lang").map_or(Some(Language::English), Language::parse);
    let language = language.ok_or_else(|| Refusal::invalid("lang", "must be `en` or `zh`"))?;
    Ok(match paper::format(asked, &["json", "csv", "html"])? {
        "csv" => paper::csv(print::csv(invoice), invoice.id.as_deref().unwrap_or("draft")),
        "html" => {
            let head = [(CONTENT_TYPE, "text/html; charset=utf-8"), (CONTENT_SECURITY_POLICY, POLICY)];
            (head, print::html(invoice, language)).into_response()
        }
        _ => Json(invoice).into_response(),
    })
}

/// The time that is meant; `None` where nothing is said.
fn period(month: Option<&str>, from: Option<&str>, until: Option<&str>) -> Result<Option<Period>, Refusal> {
    match (month, from, until) {
        (None, None, None) => Ok(None),
        (Some(month), None, None) => match Month::parse(month) {
            Some(month) => Ok(Some(month.period())),
            None => Err(Refusal::invalid("month", "must be a month, as in 2026-11")),
        },
        (None, Some(from), Some(until)) => {
            let day = |field: &str, text: &str| {
                Day::parse(text).ok_or_else(|| Refusal::invalid(field, "must be a day, as in 2026-11-25"))
            };
            let period = Period::new(day("from", from)?, day("until", until)?);
            let why = "must be after `from`, by a year at most; the day itself is left out";
            period.map(Some).ok_or_else(|| Refusal::invalid("until", why))
        }
        _ => Err(Refusal::invalid("month", "say either `month`, or both `from` and `until`")),
    }
}

fn head(invoice: &Invoice) -> Head {
    Head {
        id: invoice.id.clone(),
        from: invoice.from.to_string(),
        until: invoice.until.to_string(),
        issued: invoice.issued.map(|at| when::text(Timestamp(at))),
        currency: invoice.currency,
        total: invoice.total,
        lines: invoice.lines.len(),
    }
}
