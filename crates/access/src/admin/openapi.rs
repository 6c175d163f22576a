//! The admin API's description, in OpenAPI 3.1, made of the table of routes and the types of the config.

use std::sync::Arc;

use axum::Json;
use axum::response::IntoResponse;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::route::{Answering, Method, Pace, Route, Shape, Who, routes};
use super::{Asked, Plane, schema};

pub(super) const ROUTES: &[Route] = &[Route {
    method: Method::Get,
    path: "/admin/v1/openapi.json",
    who: Who::Anybody,
    pace: Pace::Quick,
    about: "This description.",
    query: &[],
    takes: None,
    gives: (200, Some(Shape { name: "Description", schema: schema::anything })),
    handler: show,
}];

fn show(_: Arc<Plane>, _: Asked) -> Answering {
    Box::pin(async move { Ok(Json(document()).into_response()) })
}

/// The whole document.
pub fn document() -> Value {
    let mut generator = SchemaSettings::draft2020_12()
        .with(|settings| settings.definitions_path = "/components/schemas".into())
        .into_generator();
    let mut shapes = Map::new();
    shapes.insert("Error".into(), error());
    let mut paths: Map<String, Value> = Map::new();
    for route in routes() {
        let operation = operation(route, &mut generator, &mut shapes);
        let path = paths.entry(route.path).or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(methods) = path {
            methods.insert(route.method.as_str().to_ascii_lowercase(), operation);
        }
    }
    for (name, shape) in generator.take_definitions(true) {
        shapes.entry(name).or_insert(shape);
    }
    shapes.sort_keys();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Sluice admin API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Tenants, keys, plans and prices. Served by the control plane (`listen.admin`).",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "http://127.0.0.1:8090" }],
        "security": [{ "bearer": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The admin token, or an API key with the scope `admin` or `usage`.",
                },
            },
            "schemas": shapes,
        },
    })
}

fn operation(route: &'static Route, generator: &mut SchemaGenerator, shapes: &mut Map<String, Value>) -> Value {
    let mut named = |shape: &Shape| {
        if !shapes.contains_key(shape.name) {
            let schema = (shape.schema)(generator);
            shapes.insert(shape.name.into(), schema.to_value());
        }
        json!({ "application/json": { "schema": { "$ref": format!("#/components/schemas/{}", shape.name) } } })
    };
    let (status, gives) = &route.gives;
    let mut answer = json!({ "description": "Done." });
    if let Some(shape) = gives {
        answer = json!({ "description": shape.name, "content": named(shape) });
    }
    let mut operation = json!({
        "summary": route.about,
        "operationId": id(route),
        "description": format!("For {}.", route.who.as_str()),
    });
    let of_path = route
        .parameters()
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }));
    let of_query = route.query.iter().map(|query| {
        json!({ "name": query.name, "in": "query", "description": query.about, "schema": { "type": "string" } })
    });
    let parameters: Vec<Value> = of_path.chain(of_query).collect();
    if let Value::Object(fields) = &mut operation {
        if route.who == Who::Anybody {
            fields.insert("security".into(), json!([]));
        }
        if !parameters.is_empty() {
            fields.insert("parameters".into(), parameters.into());
        }
        if let Some(shape) = &route.takes {
            fields.insert("requestBody".into(), json!({ "content": named(shape) }));
        }
        let refused = json!({
            "description": "Why not.",
            "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Error" } } },
        });
        fields.insert("responses".into(), json!({ status.to_string(): answer, "default": refused }));
    }
    operation
}

/// As in `getTenantsKeys`: the method and the nouns of the path.
fn id(route: &Route) -> String {
    let mut id = route.method.as_str().to_ascii_lowercase();
    for part in route.path.trim_start_matches("/admin/v1/").split(['/', '.']) {
        let one = part.starts_with('{');
        let word = part.trim_matches(['{', '}']);
        if one {
            id.push_str("By");
        }
        let mut letters = word.chars();
        id.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        id.push_str(letters.as_str());
    }
    id
}

fn error() -> Value {
    json!({
        "type": "object",
        "properties": {
            "error": {
                "type": "object",
                "properties": {
                    "message": { "type": "string", "description": "What is wrong and how to mend it." },
                    "code": { "type": "string", "description": "The same in a word, for programs." },
                    "field": { "type": "string", "description": "The field at fault, by its path." },
                },
                "required": ["message", "code"],
            },
        },
        "required": ["error"],
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn references(value: &Value, found: &mut HashSet<String>) {
        match value {
            Value::Object(fields) => {
                if let Some(Value::String(target)) = fields.get("$ref") {
                    found.insert(target.clone());
                }
                fields.values().for_each(|value| references(value, found));
            }
            Value::Array(list) => list.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn whatever_is_referred_to_is_there_and_every_operation_has_a_name_of_its_own() {
        let document = document();
        let mut found = HashSet::new();
        references(&document, &mut found);
        for target in found {
            let pointer = target.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{target}");
        }
        let mut names = HashSet::new();
        for methods in document["paths"].as_object().unwrap().values() {
            for operation in methods.as_object().unwrap().values() {
                assert!(names.insert(operation["operationId"].as_str().unwrap().to_owned()), "{operation}");
            }
        }
        assert_eq!(names.len(), routes().count());
    }
}
