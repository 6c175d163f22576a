"""What an application that uses OpenAI's own Python SDK can do."""

import json

import pytest

from rig.llama import ENDLESS

pytestmark = pytest.mark.direct

ASK = [{"role": "user", "content": "Hello there"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


def text_of(chunks):
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


def test_models_are_listed_and_retrieved(client, endpoint):
    listed = client.models.list()
    assert endpoint.model in [entry.id for entry in listed.data]
    assert all(entry.object == "model" for entry in listed.data)


def test_a_chat_answer_arrives_whole(client, endpoint):
    answer = client.chat.completions.create(model=endpoint.model, messages=ASK, temperature=0, max_tokens=40)
    assert answer.object == "chat.completion"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content.endswith(".")
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens > 5
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_stream_brings_the_same_words_piece_by_piece(client, endpoint):
    ask = {"model": endpoint.model, "messages": ASK, "temperature": 0, "max_tokens": 40}
    whole = client.chat.completions.create(**ask).choices[0].message.content
    chunks = list(client.chat.completions.create(**ask, stream=True))
    assert len(chunks) > 5
    assert text_of(chunks) == whole
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_a_stream_that_asks_for_usage_ends_with_it(client, endpoint):
    stream = client.chat.completions.create(
        model=endpoint.model, messages=ASK, temperature=0, max_tokens=4, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 4
    assert [chunk for chunk in chunks[:-1] if not chunk.choices] == []


def test_a_stream_that_does_not_ask_for_usage_sees_none(client, endpoint):
    for options in ({}, {"stream_options": {"include_usage": False}}):
        stream = client.chat.completions.create(
            model=endpoint.model, messages=ASK, temperature=0, max_tokens=4, stream=True, **options
        )
        chunks = list(stream)
        assert text_of(chunks)
        assert [chunk for chunk in chunks if not chunk.choices or chunk.usage] == []


def test_a_tool_call_keeps_its_shape_and_its_result_leads_to_an_answer(client, endpoint):
    ask = {"model": endpoint.model, "tools": [WEATHER], "temperature": 0, "max_tokens": 200}
    messages = [{"role": "user", "content": "What is the weather in Rome?"}]
    first = client.chat.completions.create(**ask, messages=messages, tool_choice="required")
    assert first.choices[0].finish_reason == "tool_calls"
    [call] = first.choices[0].message.tool_calls
    assert call.type == "function" and call.id
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments)["city"] in ("Paris", "Rome")

    messages += [first.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "Sunny, 31 degrees"}]
    second = client.chat.completions.create(**ask, messages=messages)
    assert second.choices[0].finish_reason == "stop"
    assert second.choices[0].message.content


def test_a_streamed_tool_call_adds_up_to_its_arguments(client, endpoint):
    stream = client.chat.completions.create(
        model=endpoint.model,
        messages=[{"role": "user", "content": "What is the weather in Rome?"}],
        tools=[WEATHER],
        tool_choice="required",
        temperature=0,
        max_tokens=200,
        stream=True,
    )
    deltas, finish = [], None
    for chunk in stream:
        for choice in chunk.choices:
            deltas += choice.delta.tool_calls or []
            finish = choice.finish_reason or finish
    assert finish == "tool_calls"
    assert deltas[0].function.name == "get_weather" and deltas[0].id
    assert len(deltas) > 1, "the arguments come in pieces"
    assert json.loads("".join(delta.function.arguments or "" for delta in deltas))["city"] in ("Paris", "Rome")


def test_structured_output_fits_its_schema(client, endpoint):
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"], "additionalProperties": False}
    answer = client.chat.completions.create(
        model=endpoint.model,
        messages=ASK,
        temperature=0,
        max_tokens=100,
        response_format={"type": "json_schema", "json_schema": {"name": "verdict", "schema": schema, "strict": True}},
    )
    assert set(json.loads(answer.choices[0].message.content)) == {"ok"}


def test_max_tokens_ends_an_answer_with_reason_length(client, endpoint):
    answer = client.chat.completions.create(model=endpoint.model, messages=ASK, max_tokens=3)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 3


def test_logprobs_survive(client, endpoint):
    answer = client.chat.completions.create(
        model=endpoint.model, messages=ASK, temperature=0, max_tokens=3, logprobs=True, top_logprobs=2
    )
    content = answer.choices[0].logprobs.content
    assert len(content) == 3
    assert all(len(token.top_logprobs) == 2 for token in content)


def test_fields_that_openai_does_not_know_survive_both_ways(client, endpoint):
    grammar = {"grammar": 'root ::= "yes"'}  # llama.cpp's own: it decides the whole answer
    answer = client.chat.completions.create(model=endpoint.model, messages=ASK, max_tokens=20, extra_body=grammar)
    assert answer.choices[0].message.content == "yes"
    assert answer.model_extra["timings"]["predicted_n"] >= 1


def test_text_beyond_ascii_survives(client, endpoint):
    grammar = {"grammar": 'root ::= "\u4e2d\u53f0 \u2713 \U0001f680"'}
    stream = client.chat.completions.create(
        model=endpoint.model,
        messages=[{"role": "user", "content": "\u4f60\u597d \U0001f44b"}],
        max_tokens=60,
        stream=True,
        extra_body=grammar,
    )
    assert text_of(stream) == "\u4e2d\u53f0 \u2713 \U0001f680"


def test_embeddings_come_as_floats_and_as_base64(client, endpoint):
    texts = ["hello", "a second text"]
    packed = client.embeddings.create(model=endpoint.model, input=texts)  # the SDK asks for base64 by itself
    plain = client.embeddings.create(model=endpoint.model, input=texts, encoding_format="float")
    assert [entry.index for entry in packed.data] == [0, 1]
    assert packed.usage.prompt_tokens > 0
    for a, b in zip(packed.data, plain.data, strict=True):
        assert len(a.embedding) == 256
        assert a.embedding == pytest.approx(b.embedding, abs=1e-5)
    assert packed.data[0].embedding != packed.data[1].embedding


def test_completions_work_whole_and_streamed(client, endpoint):
    ask = {"model": endpoint.model, "prompt": "Hello", "temperature": 0, "max_tokens": 6}
    whole = client.completions.create(**ask)
    assert whole.object == "text_completion"
    assert whole.choices[0].finish_reason == "length"
    assert whole.usage.completion_tokens == 6
    chunks = list(client.completions.create(**ask, stream=True))
    assert "".join(choice.text for chunk in chunks for choice in chunk.choices) == whole.choices[0].text
    assert all(chunk.choices for chunk in chunks), "no chunk of usage alone was asked for"


def test_a_long_stream_arrives_complete(client, endpoint):
    stream = client.chat.completions.create(
        model=endpoint.model,
        messages=ASK,
        temperature=0,
        max_tokens=2000,
        logit_bias=ENDLESS,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    assert chunks[-1].usage.completion_tokens == 2000
    assert sum(bool(chunk.choices and chunk.choices[0].delta.content) for chunk in chunks) == 2000
