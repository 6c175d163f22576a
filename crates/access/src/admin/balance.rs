//! Balances, and money that people move.

use std::sync::Arc;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use kernel::store::ledger::{Account, PostingId, Transfer};
use kernel::{Currency, Money, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tenancy::balance::{self, Deposit, Funds, Moved};
use tenancy::when;
use uuid::Uuid;

use super::paper;
use super::route::{Answering, Method, Pace, Query, Route, Shape, Who};
use super::{Asked, Plane, Refusal, schema};

pub(super) const ROUTES: &[Route] = &[
    Route {
        method: Method::Get,
        path: "/admin/v1/tenants/{tenant}/balance",
        who: Who::Reader,
        pace: Pace::Report,
        about: "What a tenant has to spend, or owes where it is less than nothing.",
        query: &[Query { name: "currency", about: "In this currency; default: that of the tenant's plan." }],
        takes: None,
        gives: (200, Some(Shape { name: "Balance", schema: schema::of::<Standing> })),
        handler: show,
    },
    Route {
        method: Method::Get,
        path: "/admin/v1/tenants/{tenant}/transfers",
        who: Who::Reader,
        pace: Pace::Report,
        about: "What moved on a tenant's account, in order of time: payments, credit, fees, corrections.",
        query: &[
            Query { name: "calls", about: "`true`: with those of calls." },
            Query { name: "limit", about: "How many at most: 1 to 1000, 100 by default." },
            Query { name: "after", about: "`next` of the page before." },
        ],
        takes: None,
        gives: (
            200,
            Some(Shape { name: "Transfers", schema: |generator| schema::page_of::<Shown>(generator, "transfers") }),
        ),
        handler: transfers,
    },
    Route {
        method: Method::Post,
        path: "/admin/v1/tenants/{tenant}/top-ups",
        who: Who::Operator,
        pace: Pace::Report,
        about: "Enters money that a tenant paid: 201; 200 where it was entered before.",
        query: &[],
        takes: Some(DEPOSIT),
        gives: (201, Some(TRANSFER)),
        handler: top_up,
    },
    Route {
        method: Method::Post,
        path: "/admin/v1/tenants/{tenant}/grants",
        who: Who::Operator,
        pace: Pace::Report,
        about: "Gives a tenant credit: 201; 200 where it was given before.",
        query: &[],
        takes: Some(DEPOSIT),
        gives: (201, Some(TRANSFER)),
        handler: grant,
    },
    Route {
        method: Method::Post,
        path: "/admin/v1/tenants/{tenant}/transfers/{transfer}/reversal",
        who: Who::Operator,
        pace: Pace::Report,
        about: "Takes a transfer back by one the other way: 201; 200 where it was taken back before.",
        query: &[],
        takes: Some(Shape { name: "Reversal", schema: schema::of::<Reversal> }),
        gives: (201, Some(TRANSFER)),
        handler: reverse,
    },
];

const DEPOSIT: Shape = Shape { name: "Deposit", schema: schema::of::<Paid> };
const TRANSFER: Shape = Shape { name: "Transfer", schema: schema::of::<Shown> };

/// Money to be moved onto the tenant's account.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Paid {
    /// How much.
    amount: Money,
    /// In which currency; default: that of the tenant's plan.
    currency: Option<Currency>,
    /// Any text of your own, another one for each payment: the same again moves nothing.
    idempotency_key: String,
    /// Why, in words.
    note: Option<String>,
}

/// Why something is taken back.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Reversal {
    /// In words.
    note: Option<String>,
}

/// How an account stands.
#[derive(Serialize, JsonSchema)]
struct Standing {
    /// In which currency.
    currency: Currency,
    /// What there is to spend; less than nothing: owed.
    balance: Money,
    /// Everything taken from it.
    debits: Money,
    /// Everything given to it.
    credits: Money,
}

/// A transfer, as it is shown.
#[derive(Serialize, JsonSchema)]
struct Shown {
    /// Its id.
    id: String,
    /// When.
    at: String,
    /// What for.
    cause: &'static str,
    /// What it adds to the tenant's account; less than nothing: what it takes.
    amount: Money,
    /// In which currency.
    currency: Currency,
    /// The transfer it takes back.
    reverses: Option<String>,
    /// The invoice that made it.
    invoice: Option<String>,
    /// Why, in words.
    note: Option<String>,
}

fn show(plane: Arc<Plane>, asked: Asked) -> Answering {
    Box::pin(async move {
        let tenant = paper::known(&plane, &asked).await?;
        let currency = match paper::currency(&asked)? {
            Some(currency) => currency,
            None => plane.books.currency(&tenant, Timestamp::now()).await?,
        };
        let (balance, moved) = balance::balance(&plane.books, &tenant, currency).await?;
        Ok(Json(Standing { currency, balance, debits: moved.debits, credits: moved.credits }).into_response())
    })
}

fn transfers(plane: Arc<Plane>, asked: Asked) -> Answering {
    Box::pin(async move {
        let account = Account::Tenant(paper::known(&plane, &asked).await?);
        let page = asked.page()?;
        let after = page.after.as_deref().map(paper::read_cursor).transpose()?;
        let ledger = plane.books.ledger();
        let found = match asked.query("calls") {
            None | Some("false") => ledger.moves(&account, after, page.most).await,
            Some("true") => ledger.transfers(&account, after, page.most).await,
            Some(_) => return Err(Refusal::invalid("calls", "must be `true` or `false`")),
        };
        let found = found.map_err(paper::fault)?;
        let full = found.len() == page.most as usize;
        let next = found.last().filter(|_| full).map(|last| paper::cursor(last.at, last.id));
        let shown: Vec<_> = found.into_iter().map(|transfer| shown(&account, transfer)).collect();
        Ok(Json(json!({ "transfers": shown, "next": next })).into_response())
    })
}

fn top_up(plane: Arc<Plane>, asked: Asked) -> Answering {
    Box::pin(deposit(plane, asked, Funds::Cash, "top-up entered"))
}

fn grant(plane: Arc<Plane>, asked: Asked) -> Answering {
    Box::pin(deposit(plane, asked, Funds::Grant, "credit given"))
}

async fn deposit(plane: Arc<Plane>, asked: Asked, from: Funds, told: &'static str) -> Result<Response, Refusal> {
    let tenant = paper::known(&plane, &asked).await?;
    let paid: Paid = asked.body()?;
    let currency = match paid.currency {
        Some(currency) => currency,
        None => plane.books.currency(&tenant, Timestamp::now()).await?,
    };
    let deposit = Deposit { tenant, amount: paid.amount, currency, key: paid.idempotency_key, note: paid.note };
    let moved = balance::deposit(&plane.books, from, &deposit, Timestamp::now()).await?;
    Ok(answer(&asked, moved, told))
}

fn reverse(plane: Arc<Plane>, asked: Asked) -> Answering {
    Box::pin(async move {
        let tenant = paper::known(&plane, &asked).await?;
        let reversal: Reversal = asked.body()?;
        let id = Uuid::parse_str(asked.parameter("transfer")).map_err(|_| Refusal::missing("transfer"))?;
        let moved = balance::reverse(&plane.books, &tenant, PostingId(id), reversal.note, Timestamp::now()).await?;
        Ok(answer(&asked, moved, "transfer taken back"))
    })
}

fn answer(asked: &Asked, moved: Moved, told: &'static str) -> Response {
    let tenant = asked.tenant();
    if moved.new {
        asked.tell(told, &moved.transfer.id.to_string(), tenant.as_str());
    }
    let status = if moved.new { StatusCode::CREATED } else { StatusCode::OK };
    (status, Json(shown(&Account::Tenant(tenant), moved.transfer))).into_response()
}

fn shown(account: &Account, transfer: Transfer) -> Shown {
    let given = transfer.credit == *account;
    Shown {
        id: transfer.id.to_string(),
        at: when::text(transfer.at),
        cause: transfer.cause.as_str(),
        amount: if given { transfer.amount } else { -transfer.amount },
        currency: transfer.currency,
        reverses: transfer.reverses.map(|id| id.to_string()),
        invoice: transfer.invoice,
        note: transfer.note,
    }
}
