//! Shapes for the OpenAPI document, made of the config's own types so that they cannot differ from them.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;
use serde_json::{Map, Value};

/// Any JSON object: what is for people to look at.
pub(super) fn anything(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object" })
}

/// The shape of a type.
pub(super) fn of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    inlined::<T>(generator)
}

/// The shape of a list: its name, what is in it, and where the next page begins.
pub(super) fn page(name: &str, item: &str) -> Schema {
    json_schema!({
        "type": "object",
        "properties": {
            name: { "type": "array", "items": { "$ref": format!("#/components/schemas/{item}") } },
            "next": { "type": ["string", "null"], "description": "Send it as `after` for the next page; `null`: this was the last." },
        },
        "required": [name, "next"],
    })
}

/// The shape of a list that is given whole.
pub(super) fn list(name: &str, item: &str) -> Schema {
    json_schema!({
        "type": "object",
        "properties": { name: { "type": "array", "items": { "$ref": format!("#/components/schemas/{item}") } } },
        "required": [name],
    })
}

/// The same of a type that has no name of its own.
pub(super) fn list_of<T: JsonSchema>(generator: &mut SchemaGenerator, name: &str) -> Schema {
    json_schema!({
        "type": "object",
        "properties": { name: { "type": "array", "items": inlined::<T>(generator) } },
        "required": [name],
    })
}

/// The shape of one page of a list of a type that has no name of its own.
pub(super) fn page_of<T: JsonSchema>(generator: &mut SchemaGenerator, name: &str) -> Schema {
    json_schema!({
        "type": "object",
        "properties": {
            name: { "type": "array", "items": inlined::<T>(generator) },
            "next": { "type": ["string", "null"], "description": "Send it as `after` for the next page; `null`: this was the last." },
        },
        "required": [name, "next"],
    })
}

/// The shape of a config section without some fields, with those of another type beside them.
pub(super) fn settings<T: JsonSchema, M: JsonSchema>(generator: &mut SchemaGenerator, without: &[&str]) -> Schema {
    let mut base = inlined::<T>(generator);
    drop_fields(&mut base, without);
    beside::<M>(generator, base)
}

/// A shape with the fields of a type beside its own.
pub(super) fn beside<M: JsonSchema>(generator: &mut SchemaGenerator, mut base: Schema) -> Schema {
    let more = inlined::<M>(generator);
    let fields = base.ensure_object();
    if let (Some(Value::Object(there)), Some(Value::Object(added))) =
        (fields.get_mut("properties"), more.get("properties"))
    {
        there.extend(added.clone());
    }
    if let (Some(Value::Array(there)), Some(Value::Array(added))) = (fields.get_mut("required"), more.get("required")) {
        there.extend(added.iter().cloned());
    }
    base
}

/// Settings with facts beside them, as their shapes are.
pub(super) fn with(mut fields: Map<String, Value>, facts: &impl Serialize) -> Value {
    add(&mut fields, facts);
    Value::Object(fields)
}

/// Puts facts beside settings.
pub(super) fn add(fields: &mut Map<String, Value>, facts: &impl Serialize) {
    if let Ok(Value::Object(facts)) = serde_json::to_value(facts) {
        fields.extend(facts);
    }
}

/// The same where every field may be left out, or be `null` to take it away.
pub(super) fn patch<T: JsonSchema>(generator: &mut SchemaGenerator, without: &[&str]) -> Schema {
    let mut base = inlined::<T>(generator);
    drop_fields(&mut base, without);
    if let Some(object) = base.as_object_mut() {
        object.remove("required");
        if let Some(Value::Object(properties)) = object.get_mut("properties") {
            properties.values_mut().for_each(nullable);
        }
    }
    base
}

fn nullable(property: &mut Value) {
    let about = property.as_object_mut().and_then(|property| property.remove("description"));
    let mut either = Map::new();
    if let Some(about) = about {
        either.insert("description".into(), about);
    }
    let inner = std::mem::take(property);
    either.insert("anyOf".into(), Value::Array(vec![inner, serde_json::json!({ "type": "null" })]));
    *property = Value::Object(either);
}

/// Written where it is used, not referred to.
fn inlined<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = T::json_schema(generator);
    schema.remove("title");
    schema
}

fn drop_fields(schema: &mut Schema, without: &[&str]) {
    let Some(object) = schema.as_object_mut() else { return };
    if let Some(Value::Object(properties)) = object.get_mut("properties") {
        without.iter().for_each(|name| drop(properties.shift_remove(*name)));
    }
    if let Some(Value::Array(required)) = object.get_mut("required") {
        required.retain(|name| !without.iter().any(|gone| name == gone));
    }
}
