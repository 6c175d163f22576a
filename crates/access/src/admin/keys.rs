//! API keys. A key is shown once, when it is made; what is kept is a hash.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use kernel::store::registry::KeyRow;
use kernel::{KeyId, Timestamp};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tenancy::{KeySettings, MadeKey, register, when};

use super::route::{Answering, Method, Pace, Route, Shape, Who};
use super::{Asked, Plane, Refusal, schema};

pub(super) const ROUTES: &[Route] = &[
    Route {
        method: Method::Get,
        path: "/admin/v1/tenants/{tenant}/keys",
        who: Who::Admin,
        pace: Pace::Quick,
        about: "A tenant's keys in order of making, revoked and expired ones included.",
        query: &[],
        takes: None,
        gives: (200, Some(Shape { name: "Keys", schema: |_| schema::list("keys", "Key") })),
        handler: list,
    },
    Route {
        method: Method::Post,
        path: "/admin/v1/tenants/{tenant}/keys",
        who: Who::Admin,
        pace: Pace::Quick,
        about: "Makes a key. The answer is the only place where it is shown.",
        query: &[],
        takes: Some(Shape { name: "NewKey", schema: new_key }),
        gives: (201, Some(MADE)),
        handler: make,
    },
    Route {
        method: Method::Get,
        path: "/admin/v1/tenants/{tenant}/keys/{key}",
        who: Who::Admin,
        pace: Pace::Quick,
        about: "One key.",
        query: &[],
        takes: None,
        gives: (200, Some(KEY)),
        handler: show,
    },
    Route {
        method: Method::Patch,
        path: "/admin/v1/tenants/{tenant}/keys/{key}",
        who: Who::Admin,
        pace: Pace::Quick,
        about: "Changes what the body names; `null` takes away.",
        query: &[],
        takes: Some(Shape { name: "KeyPatch", schema: key_patch }),
        gives: (200, Some(KEY)),
        handler: change,
    },
    Route {
        method: Method::Post,
        path: "/admin/v1/tenants/{tenant}/keys/{key}/rotate",
        who: Who::Admin,
        pace: Pace::Quick,
        about: "Makes a key that takes this one's place; this one goes on for a while beside it.",
        query: &[],
        takes: Some(Shape { name: "Rotation", schema: schema::of::<Rotation> }),
        gives: (201, Some(MADE)),
        handler: rotate,
    },
    Route {
        method: Method::Delete,
        path: "/admin/v1/tenants/{tenant}/keys/{key}",
        who: Who::Admin,
        pace: Pace::Quick,
        about: "Revokes a key: the next call with it is refused.",
        query: &[],
        takes: None,
        gives: (204, None),
        handler: revoke,
    },
];

const KEY: Shape = Shape { name: "Key", schema: key };
const MADE: Shape = Shape { name: "MadeKey", schema: made_key };

/// What is known of a key beside its settings.
#[derive(Serialize, JsonSchema)]
struct Facts {
    /// Its public part.
    id: String,
    /// Whose it is.
    tenant: String,
    /// Who declared it: `config` or `api`.
    source: &'static str,
    /// `active`, `expired` or `revoked`.
    state: &'static str,
    /// When it was made.
    created: String,
    /// Since when it is refused; `null`: it was not revoked.
    revoked: Option<String>,
    /// The key it took the place of.
    replaces: Option<String>,
    /// When it was last used, to some seconds.
    used: Option<String>,
}

/// What is shown of a key only when it is made.
#[derive(Serialize, JsonSchema)]
struct Secret {
    /// The whole key. It is shown only here.
    key: String,
    /// What requests with it are signed with, where they are to be signed. It is shown only here.
    signing_secret: String,
    /// Where a key was rotated: until when the old one goes on.
    old_expires: Option<String>,
}

/// How a key is rotated.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Rotation {
    /// For so long the old key goes on: 24 hours by default, 90 days at most, 0 for not at all.
    overlap_ms: Option<u64>,
}

const HIDDEN: &[&str] = &["key", "hash"];

fn key(generator: &mut SchemaGenerator) -> Schema {
    schema::settings::<KeySettings, Facts>(generator, HIDDEN)
}

fn made_key(generator: &mut SchemaGenerator) -> Schema {
    let key = key(generator);
    schema::beside::<Secret>(generator, key)
}

fn new_key(generator: &mut SchemaGenerator) -> Schema {
    schema::settings::<KeySettings, ()>(generator, HIDDEN)
}

fn key_patch(generator: &mut SchemaGenerator) -> Schema {
    schema::patch::<KeySettings>(generator, HIDDEN)
}

fn list(plane: Arc<Plane>, asked: Asked) -> Answering {
    Box::pin(async move {
        let rows = plane.register.keys(&asked.tenant()).await?;
        let keys = rows.iter().map(shown).collect::<Result<Vec<_>, _>>()?;
        Ok(Json(json!({ "keys": keys })).into_response())
    })
}

fn make(plane: Arc<Plane>, asked: Asked) -> Answering {
    Box::pin(async move {
        may_name(&asked)?;
        let made = plane.register.make_key(&asked.tenant(), asked.body()?).await?;
        asked.tell("key made", made.row.tenant.as_str(), made.row.id.as_str());
        Ok((StatusCode::CREATED, Json(with_key(&made, None)?)).into_response())
    })
}

fn show(plane: Arc<Plane>, asked: Asked) -> Answering {
    Box::pin(async move {
        let row = plane.register.key(&asked.tenant(), &id(&asked)).await?;
        Ok(Json(shown(&row)?).into_response())
    })
}

fn change(plane: Arc<Plane>, asked: Asked) -> Answering {
    Box::pin(async move {
        may_name(&asked)?;
        let row = plane.register.change_key(&asked.tenant(), &id(&asked), asked.object()?).await?;
        asked.tell("key changed", row.tenant.as_str(), row.id.as_str());
        Ok(Json(shown(&row)?).into_response())
    })
}

fn rotate(plane: Arc<Plane>, asked: Asked) -> Answering {
    Box::pin(async move {
        let rotation: Rotation = asked.body()?;
        let overlap = rotation.overlap_ms.map_or(register::OVERLAP, Duration::from_millis);
        let (made, old) = plane.register.rotate_key(&asked.tenant(), &id(&asked), overlap).await?;
        asked.tell("key rotated", old.tenant.as_str(), old.id.as_str());
        Ok((StatusCode::CREATED, Json(with_key(&made, Some(&old))?)).into_response())
    })
}

fn revoke(plane: Arc<Plane>, asked: Asked) -> Answering {
    Box::pin(async move {
        plane.register.revoke_key(&asked.tenant(), &id(&asked)).await?;
        asked.tell("key revoked", asked.parameter("tenant"), asked.parameter("key"));
        Ok(StatusCode::NO_CONTENT.into_response())
    })
}

/// Which certificates stand for whom says the operator: a tenant could name another's.
fn may_name(asked: &Asked) -> Result<(), Refusal> {
    let named = asked.object()?.get("certificates").is_some_and(|names| !names.is_null());
    if asked.only().is_none() || !named {
        return Ok(());
    }
    Err(Refusal {
        field: Some("certificates".into()),
        ..Refusal::new(StatusCode::FORBIDDEN, "forbidden", "Only an operator may say for whom a certificate stands.")
    })
}

fn id(asked: &Asked) -> KeyId {
    KeyId::new(asked.parameter("key"))
}

fn with_key(made: &MadeKey, old: Option<&KeyRow>) -> Result<Value, Refusal> {
    let old_expires = old.and_then(|old| old.expires).map(when::text);
    let (key, signing_secret) = (made.key.expose().to_owned(), made.signing_secret.expose().to_owned());
    Ok(schema::with(fields(&made.row)?, &Secret { key, signing_secret, old_expires }))
}

fn shown(row: &KeyRow) -> Result<Value, Refusal> {
    Ok(Value::Object(fields(row)?))
}

fn fields(row: &KeyRow) -> Result<Map<String, Value>, Refusal> {
    let over = row.expires.is_some_and(|expires| expires <= Timestamp::now());
    let state = match (row.revoked, over) {
        (Some(_), _) => "revoked",
        (None, true) => "expired",
        (None, false) => "active",
    };
    let facts = Facts {
        id: row.id.as_str().to_owned(),
        tenant: row.tenant.as_str().to_owned(),
        source: row.source.as_str(),
        state,
        created: when::text(row.created),
        revoked: row.revoked.map(when::text),
        replaces: row.replaces.as_ref().map(|id| id.as_str().to_owned()),
        used: row.used.map(when::text),
    };
    let mut fields = register::key_fields(row)?;
    schema::add(&mut fields, &facts);
    Ok(fields)
}
