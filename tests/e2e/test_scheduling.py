"""Who goes first, and who gets what, in front of real model servers with fewer slots than callers."""

import concurrent.futures
import re
import threading
import time

import openai
import pytest

from rig.llama import ENDLESS, Llama
from rig.sluice import model
from rig.waiting import until

TOKENS = 12  # some 60 ms of work on the slow server
ASK = {"messages": [{"role": "user", "content": "Hello there"}], "max_tokens": TOKENS, "logit_bias": ENDLESS}
FLOODING = 12  # clients of the flooding tenant, all of them calling without a pause
SAMPLES = 20  # calls of the quiet tenant in each round
ROUNDS = 3


def key(tenant):
    return f"key-of-{tenant}-0123456789"


def tenants(*names):
    return [{"id": name, "keys": [{"name": name, "key": key(name)}]} for name in names]


def client_of(gateway, tenant):
    return openai.OpenAI(base_url=gateway.url + "/v1", api_key=key(tenant), max_retries=0, timeout=20)


def total(gateway, name, *labels):
    """The sum of a metric's samples that carry all these labels."""
    return sum(value for found, text, value in gateway.metrics() if found == name and all(label in text for label in labels))


def waiting(gateway):
    return total(gateway, "sluice_queue_waiting")


def nothing_held(gateway):
    names = ("sluice_queue_waiting", "sluice_instance_busy", "sluice_requests_in_flight", "sluice_quota_used")
    return not any(total(gateway, name) for name in names)


def whole(client, name, **fields):
    """One call without streaming. Gives its answer's headers."""
    answer = client.chat.completions.with_raw_response.create(model=name, **{**ASK, **fields})
    assert answer.parse().choices[0].finish_reason == "length"
    return answer.headers


def queued(headers):
    """Milliseconds in the queue, as sluice itself measured them: no noise of this process in it."""
    return float(re.search(r"queue;dur=([\d.]+)", headers["server-timing"])[1])


class Flood:
    """Clients of one tenant that call without a pause until told to stop."""

    def __init__(self, gateway, tenant, clients):
        self.gateway, self.tenant = gateway, tenant
        self.stopping = threading.Event()
        self.pool = concurrent.futures.ThreadPoolExecutor(clients)
        self.clients = clients

    def __enter__(self):
        self.calls = [self.pool.submit(self.work) for _ in range(self.clients)]
        return self

    def work(self):
        with client_of(self.gateway, self.tenant) as client:
            while not self.stopping.is_set():
                whole(client, "narrow")

    def __exit__(self, *_):
        self.stopping.set()
        for call in self.calls:
            call.result(timeout=30)
        self.pool.shutdown()


@pytest.fixture
def narrow(sluice_with, slow):
    """One slot of the slow server, and the tenants quiet and flood."""
    return sluice_with(
        model("narrow", slow.url, upstream_model="tiny", max_concurrency=1, timeout_ms=30000),
        tenants=tenants("quiet", "flood"),
    )


def p99(values):
    ordered = sorted(values)
    return ordered[int((len(ordered) - 1) * 0.99)]


def test_a_flooding_tenant_hardly_delays_a_quiet_one(narrow, record_property):
    """The quiet tenant's p99 wait with 12 flooding clients against the same with one.

    Alone: one other client calls without a pause, so that the only slot is held by one call at a time and nobody else
    waits. What the quiet tenant then waits is the rest of that one call, which no order of those who wait can spare it.
    Flooded: twelve such clients, so that eleven calls wait whenever one of the quiet tenant's comes. Rounds of both take
    turns, so that a busy machine slows both; the calls of both are alike, and waits are measured by sluice.
    """
    waits = {1: [], FLOODING: []}
    with client_of(narrow, "quiet") as quiet:
        for _ in range(ROUNDS):
            for clients, found in waits.items():
                with Flood(narrow, "flood", clients):
                    until(lambda: waiting(narrow) >= clients - 2, 10, "the flood has come")
                    for _ in range(SAMPLES):
                        found.append(queued(whole(quiet, "narrow")))
    alone, flooded = p99(waits[1]), p99(waits[FLOODING])
    mean = {clients: sum(found) / len(found) for clients, found in waits.items()}
    told = f"p99 wait alone {alone:.1f} ms, flooded {flooded:.1f} ms; mean {mean[1]:.1f} and {mean[FLOODING]:.1f} ms"
    print(told)
    record_property("waits", told)
    assert flooded <= 1.5 * alone, told
    until(lambda: nothing_held(narrow), 5, "all is given back")


def test_a_high_call_overtakes_all_who_wait(narrow):
    """Eight calls wait behind a stream when a ninth comes that is urgent: it is answered first, and the rest in order."""
    ended = []
    with client_of(narrow, "flood") as client, concurrent.futures.ThreadPoolExecutor(9) as pool:

        def call(name, **fields):
            whole(client, "narrow", **fields)
            ended.append(name)

        stream = client.chat.completions.create(model="narrow", stream=True, **{**ASK, "max_tokens": 4000})
        next(iter(stream))
        calls = []
        for number in range(8):
            calls.append(pool.submit(call, number))
            until(lambda: waiting(narrow) == number + 1, 5, "it waits")
        calls.append(pool.submit(call, "high", extra_headers={"x-sluice-priority": "high"}))
        until(lambda: total(narrow, "sluice_queue_waiting", 'class="high"') == 1, 5, "the high call waits")
        stream.close()
        for one in calls:
            one.result(timeout=20)
    assert ended == ["high", *range(8)]
    until(lambda: nothing_held(narrow), 5, "all is given back")


def test_a_high_call_takes_the_slot_of_a_low_one_that_is_answered_all_the_same(narrow, slow):
    low, high = {"x-sluice-priority": "low"}, {"x-sluice-priority": "high"}
    with client_of(narrow, "flood") as client, concurrent.futures.ThreadPoolExecutor(1) as pool:
        long = pool.submit(whole, client, "narrow", max_tokens=150, extra_headers=low)
        until(lambda: total(narrow, "sluice_instance_busy") == 1, 5, "the low call has the slot")
        started = time.monotonic()
        whole(client, "narrow", extra_headers=high)
        took = time.monotonic() - started
        assert not long.done(), "the low call is not done before the high one"
        assert long.result(timeout=20)["x-sluice-attempts"] == "1"
    assert total(narrow, "sluice_preemptions_total", 'class="low"') == 1
    print(f"high call answered after {took * 1000:.0f} ms")
    until(lambda: nothing_held(narrow), 5, "all is given back")


def test_calls_that_wait_when_a_model_server_is_killed_go_to_the_other_and_nobody_is_told(sluice_with, tmp_path):
    """Two servers with a slot each, twenty calls without streaming, one SIGKILL: twenty answers."""
    pair = [Llama(tmp_path, "slow"), Llama(tmp_path, "slow")]
    try:
        gateway = sluice_with(
            model("narrow", *(server.url for server in pair), max_concurrency=1, timeout_ms=30000),
            tenants=tenants("quiet"),
        )
        with client_of(gateway, "quiet") as client, concurrent.futures.ThreadPoolExecutor(20) as pool:
            calls = [pool.submit(whole, client, "narrow", max_tokens=30) for _ in range(20)]
            until(lambda: waiting(gateway) >= 10, 5, "calls wait")
            until(lambda: pair[0].busy_slots() > 0, 5, "the victim is in the middle of a call")
            pair[0].process.kill()
            waited = waiting(gateway)
            answers = [call.result(timeout=30) for call in calls]
        attempts = [int(answer["x-sluice-attempts"]) for answer in answers]
        print(f"{waited:.0f} waiting at the kill, attempts {sorted(attempts)}")
        assert waited > 0 and max(attempts) == 2, "the one in flight was tried again"
        until(lambda: nothing_held(gateway), 5, "all is given back")
    finally:
        for server in pair:
            server.stop()


def test_what_a_model_server_says_of_its_load_is_seen(sluice_with, slow):
    """llama.cpp's own metrics: calls that did not come through sluice are counted too."""
    gateway = sluice_with(
        model("told", slow.url, upstream_model="tiny", load={"interval_ms": 100}), tenants=tenants("quiet")
    )
    running = lambda: total(gateway, "sluice_instance_told_running")  # noqa: E731
    until(lambda: total(gateway, "sluice_instance_told_age_seconds") > 0 and running() == 0, 5, "a first sample is there")
    with openai.OpenAI(base_url=slow.url + "/v1", api_key="none", max_retries=0, timeout=20) as direct:
        streams = [
            direct.chat.completions.create(model="tiny", stream=True, **{**ASK, "max_tokens": 4000}) for _ in range(2)
        ]
        for stream in streams:
            next(iter(stream))
        until(lambda: running() == 2, 5, "both calls are seen")
        assert total(gateway, "sluice_instance_busy") == 0, "neither came through sluice"
        assert total(gateway, "sluice_instance_told_age_seconds") < 2
        for stream in streams:
            stream.close()
    until(lambda: running() == 0, 5, "their end is seen")
