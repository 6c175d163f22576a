"""What an operator and a client can see of a call: headers, metrics, the access log. Never the prompt."""

import collections
import json
import re
import uuid

import httpx
import pytest

from rig.sluice import model
from rig.waiting import until

CANARY = "canary-7c1f-tell-nobody"


def ask(**fields):
    return {"model": "tiny-chat", "messages": [{"role": "user", "content": CANARY}], "max_tokens": 5, **fields}


def flattened(entry):
    """Every scalar of a log line, however deep."""
    values = []
    for value in entry.values():
        values += flattened(value) if isinstance(value, dict) else [value]
    return values


@pytest.fixture
def watched(sluice_with, tiny):
    """A sluice of this test's own, so that its counters start at zero."""
    return sluice_with(model("tiny-chat", tiny.url, upstream_model="tiny"))


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_says_who_gave_it_and_how_long_it_took(gateway, tiny, stream):
    answer = gateway.http.post("/v1/chat/completions", json=ask(stream=stream))
    assert answer.status_code == 200
    assert answer.headers["x-request-id"]
    assert answer.headers["x-sluice-model"].startswith("tiny-chat")
    assert answer.headers["x-sluice-instance"]
    assert int(answer.headers["x-sluice-attempts"]) == 1
    assert float(answer.headers["x-sluice-queue-ms"]) >= 0
    assert answer.headers["x-sluice-config"]
    assert "dur=" in answer.headers["server-timing"]


def test_a_request_id_of_the_client_is_kept_and_else_made(gateway):
    mine = f"req-{uuid.uuid4()}"
    assert gateway.http.get("/v1/models", headers={"x-request-id": mine}).headers["x-request-id"] == mine
    made = {gateway.http.get("/v1/models").headers["x-request-id"] for _ in range(5)}
    assert len(made) == 5


def test_a_request_id_that_could_break_a_log_is_replaced(gateway):
    for bad in ("x" * 5000, 'a"b\\c'):
        answer = gateway.http.get("/v1/models", headers={"x-request-id": bad})
        assert answer.status_code in (200, 431)
        assert answer.headers.get("x-request-id") != "x" * 5000
        for line in gateway.process.stdout().splitlines():
            if line.startswith("{"):
                json.loads(line)


def test_metrics_count_calls_and_tokens(watched):
    for stream in (False, True, False):
        assert watched.http.post("/v1/chat/completions", json=ask(stream=stream)).status_code == 200
    assert watched.http.post("/v1/chat/completions", json=ask(model="nope")).status_code == 404

    def counted():
        samples = watched.metrics()
        requests = sum(value for name, labels, value in samples if name == "sluice_requests_total" and "tiny-chat" in labels)
        return requests == 3 and samples

    samples = until(counted, 3, "sluice_requests_total counts 3 calls of tiny-chat")
    names = {name for name, _, _ in samples}
    assert all(name.startswith(("sluice_", "process_")) for name in names), names
    tokens = collections.Counter()  # by name, and by name and each label, because in and out may share a name
    for name, labels, value in samples:
        if "tokens" in name:
            for group in {name} | {f"{name}{{{label}}}" for label in re.findall(r'\w+="[^"]*"', labels)}:
                tokens[group] += value
    assert 15 in tokens.values(), f"3 answers of 5 tokens are counted somewhere: {dict(tokens)}"
    for part in ("request", "first_token", "flight", "queue"):
        assert any(part in name for name in names), f"a family about {part} in {sorted(names)}"
    assert any(name.endswith("_bucket") for name in names), "latencies are histograms"


def test_metrics_have_help_and_type_for_each_family(watched):
    watched.http.post("/v1/chat/completions", json=ask())
    text = watched.admin.get("/metrics").text
    families = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    helped = [line.split()[2] for line in text.splitlines() if line.startswith("# HELP")]
    assert families and sorted(families) == sorted(helped)
    assert len(families) == len(set(families)), "each family is there once"


def test_the_data_port_gives_no_metrics_away(gateway):
    assert gateway.http.get("/metrics").status_code == 404


@pytest.mark.parametrize("stream", [False, True])
def test_the_access_log_tells_the_call_in_one_line_of_json(gateway, stream):
    sent = f"req-{uuid.uuid4()}"
    answer = gateway.http.post("/v1/chat/completions", json=ask(stream=stream), headers={"x-request-id": sent})
    assert answer.status_code == 200

    def lines():
        return [entry for entry in gateway.access_log() if sent in flattened(entry)]

    [entry] = until(lines, 3, f"the access log has a line with {sent}")
    values = flattened(entry)
    for expected in ("acme", "tiny-chat", 200, 5):
        assert expected in values, f"{expected!r} in {entry}"
    assert entry["status"] == 200
    assert any("token" in key for key in entry) or any("token" in json.dumps(v) for v in entry.values())


def test_no_prompt_answer_or_key_is_ever_logged(gateway):
    for body in (ask(), ask(stream=True), ask(model=CANARY[:6]), ask(messages=CANARY)):
        gateway.http.post("/v1/chat/completions", json=body)
    gateway.http.post("/v1/chat/completions", content=f'{{"broken": "{CANARY}'.encode())
    gateway.http.get("/v1/models", headers={"authorization": f"Bearer sk-sluice-{CANARY}"})
    marker = f"req-{uuid.uuid4()}"
    gateway.http.post("/v1/chat/completions", json=ask(), headers={"x-request-id": marker})
    until(lambda: marker in gateway.process.output(), 3, "the log has caught up")
    output = gateway.process.output() + gateway.admin.get("/metrics").text
    assert CANARY not in output
    assert gateway.key not in output


def test_a_client_that_leaves_is_logged_as_499(gateway, slow):
    sent = f"req-{uuid.uuid4()}"
    body = {**ask(model="slow-chat"), "max_tokens": 4000, "logit_bias": {"4": -100}, "stream": True}
    with gateway.http.stream("POST", "/v1/chat/completions", json=body, headers={"x-request-id": sent}) as stream:
        next(stream.iter_bytes())
    [entry] = until(
        lambda: [entry for entry in gateway.access_log() if sent in flattened(entry)], 3, "the cancelled call is logged"
    )
    assert 499 in flattened(entry), entry


def test_health_and_readiness_need_no_key(gateway):
    for path in ("/health", "/ready"):
        assert httpx.get(gateway.url + path, timeout=5).status_code == 200
