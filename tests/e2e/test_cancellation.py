"""A client that goes away frees the model server at once."""

import json
import socket
import time
import urllib.parse

import pytest

from rig.llama import ENDLESS
from rig.relay import Relay
from rig.sluice import model
from rig.waiting import until

ASK = [{"role": "user", "content": "Hello there"}]
# The slow model needs ten seconds and more for this many tokens, so a slot that is free early was cancelled.
LONG = {"messages": ASK, "max_tokens": 4000, "logit_bias": ENDLESS, "temperature": 0}
# Bound: llama-server takes some 25 ms to see that a stream's client has gone; the rest is for a busy machine.
FREE_SECONDS = 1.0
# Bound: Sluice promises 100 ms; the rest is for a busy machine.
TOLD_SECONDS = 0.3


@pytest.fixture
def idle(slow_endpoint):
    """The slow server with no slot busy; fails when an earlier call still runs."""
    server = slow_endpoint.server
    until(lambda: server.busy_slots() == 0, 10, "all slots are idle before the test")
    return server


def must_become_idle(server, record_property):
    started = time.monotonic()
    until(lambda: server.busy_slots() == 0, FREE_SECONDS, "the model server's slot is free after the client went away")
    record_property("slot_free_after_ms", round(1000 * (time.monotonic() - started)))


def send_raw(endpoint, body):
    """A call on a socket of its own, sent whole, its answer not read."""
    url = urllib.parse.urlsplit(endpoint.base_url)
    data = json.dumps({"model": endpoint.model, **body}).encode()
    connection = socket.create_connection((url.hostname, url.port), timeout=10)
    connection.sendall(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        + f"authorization: Bearer {endpoint.key}\r\ncontent-length: {len(data)}\r\n\r\n".encode()
        + data
    )
    return connection


@pytest.mark.direct
def test_a_stream_closed_in_the_middle_frees_the_slot(slow_endpoint, idle, record_property):
    with slow_endpoint.client() as client:
        stream = client.chat.completions.create(model=slow_endpoint.model, stream=True, **LONG)
        pieces = [next(stream) for _ in range(5)]
        assert len(pieces) == 5
        assert idle.busy_slots() == 1
        stream.close()
        must_become_idle(idle, record_property)


@pytest.mark.direct
def test_a_client_killed_in_the_middle_of_a_stream_frees_the_slot(slow_endpoint, idle, record_property):
    connection = send_raw(slow_endpoint, {**LONG, "stream": True})
    assert connection.recv(4096).startswith(b"HTTP/1.1 200")
    assert idle.busy_slots() == 1
    # Linger 0: a reset instead of an orderly close, as from a machine that vanished and came back.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    connection.close()
    must_become_idle(idle, record_property)


@pytest.mark.direct
def test_ten_aborted_streams_leave_nothing_behind(slow_endpoint, idle, record_property):
    with slow_endpoint.client() as client:
        for _ in range(10):
            stream = client.chat.completions.create(model=slow_endpoint.model, stream=True, **LONG)
            next(stream)
            stream.close()
        must_become_idle(idle, record_property)
        short = client.chat.completions.create(model=slow_endpoint.model, messages=ASK, max_tokens=2)
        assert short.usage.completion_tokens == 2


@pytest.fixture
def watched(sluice_with, slow, idle):
    """A sluice whose connections to the model server are seen, and that relay."""
    relay = Relay(slow.url)
    gateway = sluice_with(model("slow-chat", relay.url, upstream_model="tiny", timeout_ms=30000, max_concurrency=1))
    yield gateway, relay
    relay.close()


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("leave_after", [0.0, 0.3], ids=["at once", "later"])
def test_the_model_server_is_told_when_the_client_leaves(watched, stream, leave_after, record_property):
    """Asserted on the connection: llama-server goes on with a call without streaming whatever happens to its caller."""
    gateway, relay = watched
    marker = f"leaves-{stream}-{leave_after}"
    # Few tokens, because the model server finishes what nobody waits for.
    body = {**LONG, "max_tokens": 300, "stream": stream, "user": marker}
    url = urllib.parse.urlsplit(gateway.url)
    data = json.dumps({"model": "slow-chat", **body}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {gateway.key}\r\n"
    with socket.create_connection((url.hostname, url.port), timeout=10) as connection:
        connection.sendall(f"{head}content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n".encode() + data)
        [call] = until(lambda: relay.calls(marker.encode()), 5, "the call has reached the model server")
        time.sleep(leave_after)
        assert call.closed_at is None, "the call is still running"
    left = time.monotonic()
    until(lambda: call.closed_at, 5, "the connection of the call is closed")
    record_property("told_after_ms", round(1000 * (call.closed_at - left)))
    assert call.closed_at - left < TOLD_SECONDS

    # The slot is free in sluice too: with one slot, another call gets through although its queue wait is bounded.
    answer = gateway.http.post("/v1/chat/completions", json={"model": "slow-chat", "messages": ASK, "max_tokens": 1})
    assert answer.status_code == 200
    assert float(answer.headers["x-sluice-queue-ms"]) < 1000 * TOLD_SECONDS
