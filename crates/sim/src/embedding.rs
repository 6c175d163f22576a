//! `POST /v1/embeddings`: unit vectors that are equal for equal inputs and otherwise mean nothing.

use serde::Serialize;
use serde_json::json;

use crate::plan::Plan;
use crate::prompt::Prompt;
use crate::random::Random;
use crate::refusal::Refusal;
use crate::request::Fields;
use crate::settings::{MAX_DIMENSIONS, MAX_OUTPUT};
use crate::terms::Terms;

pub(crate) fn plan(terms: &mut Terms, fields: &Fields, model: String) -> Result<Plan, Refusal> {
    let inputs = Prompt::of_inputs(fields, "input")?;
    let dimensions = fields.count("dimensions", MAX_DIMENSIONS)?.unwrap_or(terms.dimensions);
    if inputs.len() as u64 * dimensions > MAX_OUTPUT {
        let message = format!("{} vectors of {dimensions} are more than {MAX_OUTPUT} numbers", inputs.len());
        return Err(Refusal::invalid("input", message));
    }
    let encode: fn(Vec<f32>) -> Vector = match fields.text("encoding_format")? {
        None | Some("float") => Vector::Float,
        Some("base64") => |vector| Vector::Base64(base64(&vector)),
        Some(_) => return Err(Refusal::invalid("encoding_format", "encoding_format must be float or base64")),
    };
    let data = inputs.iter().enumerate().map(|(index, input)| Embedding {
        object: "embedding",
        index,
        embedding: encode(vector(terms.seed, input.digest, dimensions)),
    });
    let tokens: u64 = inputs.iter().map(|input| input.tokens).sum();
    let usage = json!({"prompt_tokens": tokens, "total_tokens": tokens});
    let answer = Answer { object: "list", data: data.collect(), model, usage };
    // One wait, as for a first token: the input is read, nothing is written token by token.
    Ok(Plan::json(&answer).delayed(terms.pace().total(1)))
}

#[derive(Serialize)]
struct Answer {
    object: &'static str,
    data: Vec<Embedding>,
    model: String,
    usage: serde_json::Value,
}

#[derive(Serialize)]
struct Embedding {
    object: &'static str,
    index: usize,
    embedding: Vector,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Vector {
    Float(Vec<f32>),
    Base64(String),
}

/// A vector of length 1 that belongs to this seed and input.
fn vector(seed: u64, input: u64, dimensions: u64) -> Vec<f32> {
    let mut random = Random::of(seed, input);
    let mut direction: Vec<f64> = (0..dimensions).map(|_| random.fraction() * 2.0 - 1.0).collect();
    if let Some(first) = direction.first_mut() {
        // Invariant: not all zero, so the length below is not zero either.
        *first += if *first < 0.0 { -0.25 } else { 0.25 };
    }
    let length = direction.iter().map(|part| part * part).sum::<f64>().sqrt();
    direction.into_iter().map(|part| (part / length) as f32).collect()
}

/// The numbers as little-endian 32-bit floats, in base64 with padding.
fn base64(vector: &[f32]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bytes: Vec<u8> = vector.iter().flat_map(|part| part.to_le_bytes()).collect();
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let index = (bits >> (18 - 6 * place)) as usize & 63;
            let letter = ALPHABET.get(index).copied().unwrap_or(b'=');
            out.push(if place <= group.len() { char::from(letter) } else { '=' });
        }
    }
    out
}
