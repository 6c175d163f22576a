//! `POST /v1/completions`, the older endpoint for bare prompts.

use serde_json::json;

use crate::plan::Plan;
use crate::prompt::Prompt;
use crate::refusal::Refusal;
use crate::request::{Delivery, Fields};
use crate::script::{Events, MAX_CHOICES, Script};
use crate::terms::Terms;
use crate::words::Words;

pub(crate) fn plan(terms: &mut Terms, fields: &Fields, model: String) -> Result<Plan, Refusal> {
    let prompts = Prompt::of_inputs(fields, "prompt")?;
    let delivery = fields.delivery()?;
    let each = fields.count("n", MAX_CHOICES)?.unwrap_or(1);
    let answers = each * prompts.len() as u64;
    if answers > MAX_CHOICES {
        return Err(Refusal::invalid("prompt", format!("{answers} answers are more than {MAX_CHOICES}")));
    }
    let limit = fields.count("max_tokens", u64::MAX)?;
    let (tokens, finish) = terms.length(limit, answers)?;
    let texts = prompts.iter().flat_map(|prompt| (0..each).map(|choice| (prompt.digest, choice)));
    let script = Script {
        id: terms.id("cmpl-"),
        model,
        choices: texts.map(|(digest, choice)| Words::of(terms.seed, digest, choice)).collect(),
        tokens,
        finish,
        prompt_tokens: prompts.iter().map(|prompt| prompt.tokens).sum(),
        pace: terms.pace(),
    };
    Ok(match delivery {
        Delivery::Whole => script.whole("text_completion", |index, words| {
            json!({"index": index, "text": words.text(tokens), "logprobs": null, "finish_reason": finish})
        }),
        Delivery::Stream { with_usage } => {
            let events = Events::of(&script, "text_completion", with_usage);
            let pieces = events.words(&script, r#""text":""#, r#"","logprobs":null,"finish_reason":null}"#);
            script.stream(events, String::new(), pieces, r#""text":"""#)
        }
    })
}
