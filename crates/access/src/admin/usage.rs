//! Usage: what was consumed and what it costs, split by whatever is asked for; and the charges it is made of.

use std::sync::Arc;

use axum::Json;
use axum::response::{IntoResponse, Response};
use kernel::store::ledger::{Charge, Filter, PostingId};
use kernel::{KeyId, ModelName, Money, TenantId, Timestamp};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;
use serde_json::json;
use tenancy::invoice::{Cursor, Month, behind};
use tenancy::{report, when};

use super::paper;
use super::route::{Answering, Method, Pace, Query, Route, Shape, Who};
use super::{Asked, Plane, Refusal, schema};

pub(super) const ROUTES: &[Route] = &[
    Route {
        method: Method::Get,
        path: "/admin/v1/usage",
        who: Who::Operator,
        pace: Pace::Report,
        about: "Usage and cost of all tenants, split by whatever is asked for.",
        query: &[TENANT, BY, MONTH, FROM, UNTIL, KEY, MODEL, TAG, paper::FORMAT_CSV, LIMIT, AFTER],
        takes: None,
        gives: (200, Some(USAGE)),
        handler: everybodys,
    },
    Route {
        method: Method::Get,
        path: "/admin/v1/tenants/{tenant}/usage",
        who: Who::Reader,
        pace: Pace::Report,
        about: "Usage and cost of a tenant, split by whatever is asked for.",
        query: &[BY, MONTH, FROM, UNTIL, KEY, MODEL, TAG, paper::FORMAT_CSV, LIMIT, AFTER],
        takes: None,
        gives: (200, Some(USAGE)),
        handler: of_tenant,
    },
    Route {
        method: Method::Get,
        path: "/admin/v1/tenants/{tenant}/charges",
        who: Who::Reader,
        pace: Pace::Report,
        about: "A tenant's charges, in order of time: of a span, or behind a line of an invoice.",
        query: &[
            MONTH,
            FROM,
            UNTIL,
            KEY,
            MODEL,
            TAG,
            Query { name: "invoice", about: "Only charges behind a line of this invoice; needs `line`, and no time." },
            Query { name: "line", about: "The line's number." },
            Query { name: "limit", about: "How many at most: 1 to 1000, 100 by default." },
            AFTER,
        ],
        takes: None,
        gives: (200, Some(Shape { name: "Charges", schema: charges_shape })),
        handler: charges,
    },
];

const USAGE: Shape = Shape { name: "Usage", schema: |_| usage_shape() };
const TENANT: Query = Query { name: "tenant", about: "Only this tenant's." };
const BY: Query = Query {
    name: "by",
    about: "Split by these, with commas between: tenant, key, model, tag, plan, price, and one of hour, day, month.",
};
const MONTH: Query =
    Query { name: "month", about: "Of this month, as in 2026-11; instead of `from` and `until`. Default: this month." };
const FROM: Query = Query { name: "from", about: "From when, as in 2026-11-25 or 2026-11-25T13:00:00Z." };
const UNTIL: Query = Query { name: "until", about: "Until when, left out. Default: now." };
const KEY: Query = Query { name: "key", about: "Only with this key, by its id." };
const MODEL: Query = Query { name: "model", about: "Only for this model." };
const TAG: Query = Query { name: "tag", about: "Only under this tag." };
const LIMIT: Query = Query { name: "limit", about: "How many rows at most: 1 to 10000, 1000 by default." };
const AFTER: Query = Query { name: "after", about: "`next` of the page before." };
const HOUR: i64 = 3_600_000;

/// A charge, as it is shown.
#[derive(Serialize, JsonSchema)]
struct Shown {
    /// Its id.
    id: String,
    /// When it ended.
    at: String,
    /// The request, as its client knows it.
    request: String,
    /// With which key.
    key: Option<String>,
    /// The model really called.
    model: String,
    /// Its version.
    version: String,
    /// The kind of work.
    operation: &'static str,
    /// Under which tag.
    tag: Option<String>,
    /// Tokens read, cached ones included.
    input_tokens: u64,
    /// Of those: read from the backend's cache.
    cached_input_tokens: u64,
    /// Of those: written to it.
    cache_write_tokens: u64,
    /// Of those: of sound.
    audio_input_tokens: u64,
    /// Tokens generated, reasoning included.
    output_tokens: u64,
    /// Of those: of thought.
    reasoning_tokens: u64,
    /// Of those: of sound.
    audio_output_tokens: u64,
    /// Images generated.
    images: u32,
    /// Whether Sluice counted the tokens because the backend did not say.
    estimated: bool,
    /// GPU time in milliseconds.
    gpu_ms: u64,
    /// How it ended.
    ending: &'static str,
    /// By which version of which plan it was rated.
    plan: Option<String>,
    /// By which price.
    price: Option<String>,
    /// In which currency.
    currency: String,
    /// What it costs, exact.
    amount: Money,
}

fn everybodys(plane: Arc<Plane>, asked: Asked) -> Answering {
    Box::pin(async move {
        let tenant = asked.query("tenant").map(TenantId::new);
        usage(&plane, &asked, tenant).await
    })
}

fn of_tenant(plane: Arc<Plane>, asked: Asked) -> Answering {
    Box::pin(async move {
        let tenant = paper::known(&plane, &asked).await?;
        usage(&plane, &asked, Some(tenant)).await
    })
}

async fn usage(plane: &Plane, asked: &Asked, tenant: Option<TenantId>) -> Result<Response, Refusal> {
    let by = report::dimensions(asked.query("by").unwrap_or_default())?;
    let most = match asked.query("limit").map(str::parse) {
        None => report::ROWS,
        Some(Ok(most)) if (1..=report::ROWS_MAX).contains(&most) => most,
        Some(_) => {
            return Err(Refusal::invalid("limit", format!("must be a number from 1 to {}", report::ROWS_MAX)));
        }
    };
    let filter = filter(asked, tenant, true)?;
    let query = report::Query { filter, by, after: asked.query("after").map(str::to_owned), most };
    let page = report::report(plane.books.ledger(), &query).await?;
    if paper::format(asked, &["json", "csv"])? == "csv" {
        let mut response = paper::csv(page.to_csv(&query.by), "usage");
        paper::next(&mut response, page.next.as_deref());
        return Ok(response);
    }
    Ok(Json(page).into_response())
}

/// Which part of the ledger a query is about. Sums want whole hours: a time that is not given ends with this hour.
fn filter(asked: &Asked, tenant: Option<TenantId>, hours: bool) -> Result<Filter, Refusal> {
    let now = Timestamp::now();
    let read = |name: &str| match asked.query(name) {
        None => Ok(None),
        Some(text) => match when::read(text) {
            Some(at) => Ok(Some(at)),
            None => Err(Refusal::invalid(name, "must be a time, as in 2026-11-25 or 2026-11-25T13:00:00Z")),
        },
    };
    let (from, until) = match asked.query("month") {
        Some(_) if asked.query("from").or(asked.query("until")).is_some() => {
            return Err(Refusal::invalid("month", "goes without `from` and `until`"));
        }
        Some(text) => {
            let month = Month::parse(text);
            let month = month.ok_or_else(|| Refusal::invalid("month", "must be a month, as in 2026-11"))?;
            (month.period().start(), month.period().end())
        }
        None => {
            let from = read("from")?.unwrap_or_else(|| tenancy::invoice::Day::of(now).month().period().start());
            (from, read("until")?.unwrap_or(Timestamp((now.millis() / HOUR + 1) * HOUR)))
        }
    };
    if hours && (from.millis() % HOUR != 0 || until.millis() % HOUR != 0) {
        let field = if from.millis() % HOUR == 0 { "until" } else { "from" };
        return Err(Refusal::invalid(field, "must be a whole hour"));
    }
    Ok(Filter {
        tenant,
        key: asked.query("key").map(KeyId::new),
        model: asked.query("model").map(ModelName::new),
        tag: asked.query("tag").map(str::to_owned),
        from: Some(from),
        until: Some(until),
        ..Filter::default()
    })
}

fn charges(plane: Arc<Plane>, asked: Asked) -> Answering {
    Box::pin(async move {
        let tenant = paper::known(&plane, &asked).await?;
        let page = asked.page()?;
        let after = page.after.as_deref().map(paper::read_cursor).transpose()?;
        let (charges, next) = match (asked.query("invoice"), asked.query("line")) {
            (None, None) => {
                let filter = filter(&asked, Some(tenant), false)?;
                let charges = plane.books.ledger().charges(&filter, after, page.most).await.map_err(paper::fault)?;
                let full = charges.len() == page.most as usize;
                let next = charges.last().filter(|_| full).map(|charge| (charge.at, charge.id));
                (charges, next)
            }
            (Some(id), Some(line)) => {
                let invoice = paper::invoice(&plane, &tenant, id).await?;
                let line = line.parse().ok().and_then(|line| invoice.line(line));
                let line =
                    line.ok_or_else(|| Refusal::invalid("line", "must be the number of a line of the invoice"))?;
                behind(&plane.books, &invoice, line, after, page.most as usize).await?
            }
            (None, Some(_)) => return Err(Refusal::invalid("line", "goes with `invoice`")),
            (Some(_), None) => return Err(Refusal::invalid("invoice", "goes with `line`")),
        };
        let shown: Vec<_> = charges.into_iter().map(shown).collect();
        Ok(Json(json!({ "charges": shown, "next": next.map(cursor) })).into_response())
    })
}

fn cursor((at, id): Cursor) -> String {
    paper::cursor(at, id)
}

fn shown(charge: Charge) -> Shown {
    let Charge { usage, id: PostingId(id), .. } = charge;
    Shown {
        id: id.to_string(),
        at: when::text(charge.at),
        request: charge.request.to_string(),
        key: charge.key.map(|key| key.to_string()),
        model: charge.model.to_string(),
        version: charge.version.to_string(),
        operation: charge.operation,
        tag: charge.tag.as_deref().map(str::to_owned),
        input_tokens: usage.input.0,
        cached_input_tokens: usage.cached.0,
        cache_write_tokens: usage.cache_write.0,
        audio_input_tokens: usage.audio_input.0,
        output_tokens: usage.output.0,
        reasoning_tokens: usage.reasoning.0,
        audio_output_tokens: usage.audio_output.0,
        images: usage.images,
        estimated: usage.estimated,
        gpu_ms: charge.gpu_millis,
        ending: charge.ending.as_str(),
        plan: charge.plan.as_deref().map(str::to_owned),
        price: charge.price.as_deref().map(str::to_owned),
        currency: charge.currency.to_string(),
        amount: charge.amount,
    }
}

fn charges_shape(generator: &mut SchemaGenerator) -> Schema {
    schema::page_of::<Shown>(generator, "charges")
}

fn usage_shape() -> Schema {
    let text = || json!({ "type": "string" });
    let count = || json!({ "type": "integer" });
    json_schema!({
        "type": "object",
        "properties": {
            "rows": {
                "type": "array",
                "items": {
                    "type": "object",
                    "description": "One field for each of what it is split by, and these.",
                    "properties": {
                        "calls": count(), "estimated_calls": count(), "input_tokens": count(),
                        "cached_input_tokens": count(), "cache_write_tokens": count(), "audio_input_tokens": count(),
                        "output_tokens": count(), "reasoning_tokens": count(), "audio_output_tokens": count(),
                        "images": count(), "gpu_ms": count(), "cost": text(), "currency": text(),
                    },
                },
            },
            "next": { "type": ["string", "null"], "description": "Send it as `after` for the next page; `null`: this was the last." },
        },
        "required": ["rows", "next"],
    })
}
