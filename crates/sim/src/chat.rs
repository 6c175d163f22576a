//! `POST /v1/chat/completions`.
//!
//! Answers made-up words, or, where the caller insists on a tool, a call of that tool with the arguments `{}`.

use serde_json::{Value, json};

use crate::plan::Plan;
use crate::prompt::Prompt;
use crate::refusal::Refusal;
use crate::request::{Delivery, Fields};
use crate::script::{Events, MAX_CHOICES, Script};
use crate::terms::Terms;
use crate::words::Words;

/// A tool call is two tokens: its name, then its arguments.
const TOOL_TOKENS: u64 = 2;

pub(crate) fn plan(terms: &mut Terms, fields: &Fields, model: String) -> Result<Plan, Refusal> {
    let prompt = Prompt::of_messages(fields)?;
    let tool = insisted_tool(fields)?;
    let delivery = fields.delivery()?;
    let choices = fields.count("n", MAX_CHOICES)?.unwrap_or(1);
    let old_limit = fields.count("max_tokens", u64::MAX)?;
    let limit = fields.count("max_completion_tokens", u64::MAX)?.or(old_limit);
    let (tokens, finish) = match tool {
        Some(_) => (TOOL_TOKENS, "tool_calls"),
        None => terms.length(limit, choices)?,
    };
    let script = Script {
        id: terms.id("chatcmpl-"),
        model,
        choices: (0..choices).map(|choice| Words::of(terms.seed, prompt.digest, choice)).collect(),
        tokens,
        finish,
        prompt_tokens: prompt.tokens,
        pace: terms.pace(),
    };
    let tool = tool.map(|name| ToolCall { id: terms.id("call_"), name });
    Ok(match delivery {
        Delivery::Whole => whole(script, tool),
        Delivery::Stream { with_usage } => stream(script, tool, with_usage),
    })
}

struct ToolCall<'a> {
    id: String,
    name: &'a str,
}

fn whole(script: Script, tool: Option<ToolCall<'_>>) -> Plan {
    let (tokens, finish) = (script.tokens, script.finish);
    script.whole("chat.completion", |index, words| {
        let message = match &tool {
            Some(call) => {
                let calls = json!([{"id": call.id(index), "type": "function", "function": call.function("{}")}]);
                json!({"role": "assistant", "content": null, "refusal": null, "tool_calls": calls})
            }
            None => json!({"role": "assistant", "content": words.text(tokens), "refusal": null}),
        };
        json!({"index": index, "message": message, "logprobs": null, "finish_reason": finish})
    })
}

fn stream(script: Script, tool: Option<ToolCall<'_>>, with_usage: bool) -> Plan {
    let events = Events::of(&script, "chat.completion.chunk", with_usage);
    let choices = script.choices.len();
    let last = r#""delta":{}"#;
    let Some(call) = tool else {
        let mut opening = String::new();
        for index in 0..choices {
            let role = r#""delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null"#;
            events.write(&mut opening, index, role);
        }
        let after = r#""},"logprobs":null,"finish_reason":null}"#;
        let pieces = events.words(&script, r#""delta":{"content":""#, after);
        return script.stream(events, opening, pieces, last);
    };
    let piece = |delta: &dyn Fn(u64) -> Value| {
        let mut out = String::new();
        for index in 0..choices {
            let rest = format!(r#""delta":{},"logprobs":null,"finish_reason":null"#, delta(index as u64));
            events.write(&mut out, index, &rest);
        }
        out
    };
    let pieces = [
        piece(&|index| {
            let call = json!({"index": 0, "id": call.id(index), "type": "function", "function": call.function("")});
            json!({"role": "assistant", "content": null, "tool_calls": [call]})
        }),
        piece(&|_| json!({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]})),
    ];
    script.stream(events, String::new(), pieces.into_iter(), last)
}

impl ToolCall<'_> {
    /// Each choice calls under an id of its own.
    fn id(&self, choice: u64) -> String {
        format!("{}{choice}", self.id)
    }

    fn function(&self, arguments: &str) -> Value {
        json!({"name": self.name, "arguments": arguments})
    }
}

/// The name of the tool that must be called, if one must.
fn insisted_tool(fields: &Fields) -> Result<Option<&str>, Refusal> {
    let mut names = Vec::new();
    for (index, tool) in fields.list("tools")?.into_iter().flatten().enumerate() {
        let is_function = tool.get("type").and_then(Value::as_str) == Some("function");
        let name = tool.get("function").and_then(|function| function.get("name")).and_then(Value::as_str);
        match name {
            Some(name) => names.push(name),
            // Tools of other types have no name to call them by.
            None if !is_function && tool.get("type").is_some_and(Value::is_string) => {}
            None => {
                let path = format!("tools[{index}].function.name");
                let message = format!("{path} must be a string");
                return Err(Refusal::invalid(path, message));
            }
        }
    }
    let bad = |message: &str| Err(Refusal::invalid("tool_choice", message));
    match fields.get("tool_choice") {
        None => Ok(None),
        Some(Value::String(choice)) => match (choice.as_str(), names.first()) {
            ("none" | "auto", _) => Ok(None),
            ("required", Some(name)) => Ok(Some(name)),
            ("required", None) => bad("tool_choice needs tools"),
            _ => bad("tool_choice must be none, auto, required or a function"),
        },
        Some(Value::Object(choice)) => {
            let name = choice.get("function").and_then(|function| function.get("name")).and_then(Value::as_str);
            match name.map(|name| names.iter().find(|known| **known == name)) {
                Some(Some(name)) => Ok(Some(name)),
                Some(None) => bad("tool_choice names a function that is not among tools"),
                None => bad("tool_choice must name a function"),
            }
        }
        Some(_) => bad("tool_choice must be a string or an object"),
    }
}
