"""SIGTERM: nothing new comes in, what runs is finished."""

import signal
import threading

import httpx

from rig.llama import ENDLESS
from rig.sluice import model
from rig.waiting import until

LONG = {
    "model": "long",
    "messages": [{"role": "user", "content": "Hello there"}],
    "max_tokens": 300,
    "logit_bias": ENDLESS,
}


def not_ready(server):
    """Says 503, or does not answer at all."""
    try:
        return httpx.get(server.url + "/ready", timeout=2).status_code == 503
    except httpx.TransportError:
        return True


def test_a_stream_in_flight_finishes_and_the_exit_code_is_0(sluice_with, slow):
    server = sluice_with(model("long", slow.url, upstream_model="tiny", timeout_ms=30000))
    with server.http.stream("POST", "/v1/chat/completions", json={**LONG, "stream": True}) as stream:
        lines = stream.iter_lines()
        next(lines)
        server.process.send(signal.SIGTERM)
        until(lambda: not_ready(server), 2, "/ready no longer says 200")
        rest = [line for line in lines if line]
    assert len(rest) > 100, "the stream was still young at SIGTERM"
    assert rest[-1] == "data: [DONE]"
    assert server.process.wait(10) == 0


def test_a_call_without_streaming_in_flight_is_answered(sluice_with, slow):
    server = sluice_with(model("long", slow.url, upstream_model="tiny", timeout_ms=30000))
    answers = []
    calling = threading.Thread(target=lambda: answers.append(server.http.post("/v1/chat/completions", json=LONG)))
    until(lambda: slow.busy_slots() == 0, 10, "the model server is idle before the test")
    calling.start()
    until(lambda: slow.busy_slots() == 1, 5, "the call has reached the model server")
    server.process.send(signal.SIGTERM)
    calling.join(timeout=20)
    assert answers and answers[0].status_code == 200
    assert answers[0].json()["usage"]["completion_tokens"] == 300
    assert server.process.wait(10) == 0


def test_an_idle_server_stops_at_once(sluice_with, tiny):
    server = sluice_with(model("tiny-chat", tiny.url))
    server.http.get("/v1/models")  # leaves an idle kept-alive connection behind
    server.process.send(signal.SIGTERM)
    assert server.process.wait(3) == 0


def test_sigint_stops_it_too(sluice_with, tiny):
    server = sluice_with(model("tiny-chat", tiny.url))
    server.process.send(signal.SIGINT)
    assert server.process.wait(3) == 0
