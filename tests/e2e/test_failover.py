"""Two model servers behind one name; one is killed under load and comes back."""

import collections
import threading
import time

import openai
import pytest

from rig.llama import Llama
from rig.sluice import model
from rig.waiting import until

WORKERS = 8
FAIL_TIMEOUT_MS = 2000
# Long enough that several calls are in flight at either server when it dies.
ASK = {"messages": [{"role": "user", "content": "Hello there"}], "max_tokens": 60, "logit_bias": {"4": -100}}


@pytest.fixture
def pair(tmp_path):
    servers = [Llama(tmp_path, "slow"), Llama(tmp_path, "slow")]
    yield servers
    for server in servers:
        server.stop()


class Load:
    """Eight clients that call without a pause, half of the calls streamed, and keep count of how each call ended."""

    def __init__(self, gateway):
        self.gateway = gateway
        self.ended = collections.Counter()
        self.faults = []
        self.instances = collections.Counter()
        self.stopping = threading.Event()
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.work, args=(number,)) for number in range(WORKERS)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        for thread in self.threads:
            thread.join(timeout=30)
        assert not any(thread.is_alive() for thread in self.threads), "a call never ended"

    def work(self, number):
        url, key = self.gateway.url + "/v1", self.gateway.key
        with openai.OpenAI(base_url=url, api_key=key, max_retries=0, timeout=20) as client:
            turn = number
            while not self.stopping.is_set():
                turn += 1
                outcome, detail = (self.stream if turn % 2 else self.whole)(client)
                with self.lock:
                    self.ended[outcome] += 1
                    if detail:
                        self.faults.append((outcome, detail))

    def whole(self, client):
        try:
            answer = client.chat.completions.with_raw_response.create(model="pair", **ASK)
            self.saw(answer)
            assert answer.parse().choices[0].finish_reason == "length"
            return "whole", None
        except Exception as error:
            return "failed before the first byte", repr(error)

    def stream(self, client):
        """A stream that breaks off after its first event is the only failure allowed, and only with an error event."""
        began, finished = False, False
        try:
            raw = client.chat.completions.with_raw_response.create(model="pair", stream=True, **ASK)
            self.saw(raw)
            for chunk in raw.parse():
                began = True
                finished = finished or any(choice.finish_reason for choice in chunk.choices)
            return ("streamed", None) if finished else ("stream ended silently", f"began: {began}")
        except openai.APIConnectionError as error:
            return ("stream cut without an error event" if began else "failed before the first byte"), repr(error)
        except openai.APIError as error:  # the SDK's reading of an error event, or of an error status
            return ("stream failed after it began" if began else "failed before the first byte"), repr(error)
        except Exception as error:
            return ("stream cut without an error event" if began else "failed before the first byte"), repr(error)

    def saw(self, response):
        with self.lock:
            self.instances[response.headers["x-sluice-instance"]] += 1

    def calls(self):
        with self.lock:
            return sum(self.ended.values())


def test_a_killed_model_server_costs_no_client_an_error_and_gets_its_share_again(sluice_with, pair, record_property):
    health = {"max_fails": 1, "fail_timeout_ms": FAIL_TIMEOUT_MS}
    gateway = sluice_with(model("pair", pair[0].url, pair[1].url, health=health, timeout_ms=15000, balance="round_robin"))
    victim, survivor = pair

    with Load(gateway) as load:
        until(lambda: load.calls() > 2 * WORKERS, 15, "calls are answered")
        until(lambda: victim.predicted_tokens() > 0 and survivor.predicted_tokens() > 0, 5, "both servers get calls")
        until(lambda: victim.busy_slots() > 0, 5, "the victim is in the middle of calls")
        victim.process.kill()
        killed_at = load.calls()
        until(lambda: load.calls() > killed_at + 4 * WORKERS, 20, "calls go on with one server")

        victim.start()
        back = time.monotonic()
        until(
            lambda: victim.predicted_tokens() > 0,
            FAIL_TIMEOUT_MS / 1000 + 1,
            "the restarted server gets calls again within fail_timeout and a second",
        )
        record_property("traffic_back_after_s", round(time.monotonic() - back, 2))
        returned = load.calls()
        until(lambda: load.calls() > returned + 2 * WORKERS, 20, "calls go on with two servers")

    record_property("ended", dict(load.ended))
    print(f"calls: {dict(load.ended)}, by instance: {dict(load.instances)}")
    allowed = {"whole", "streamed", "stream failed after it began"}
    assert set(load.ended) <= allowed, f"{dict(load.ended)}\n" + "\n".join(f"{a}: {b}" for a, b in load.faults[:20])
    assert load.ended["whole"] and load.ended["streamed"]
    assert load.ended["stream failed after it began"] <= WORKERS
    assert len(load.instances) == 2


def test_with_every_model_server_dead_the_client_is_told_at_once(sluice_with, tmp_path):
    server = Llama(tmp_path)
    gateway = sluice_with(model("tiny-chat", server.url, health={"max_fails": 1, "fail_timeout_ms": FAIL_TIMEOUT_MS}))
    server.process.kill()
    try:
        with openai.OpenAI(base_url=gateway.url + "/v1", api_key=gateway.key, max_retries=0, timeout=20) as client:
            for stream in (False, True, False):
                started = time.monotonic()
                with pytest.raises(openai.InternalServerError) as caught:
                    client.chat.completions.create(model="tiny-chat", stream=stream, **ASK)
                assert caught.value.status_code in (502, 503)
                assert caught.value.body["message"]
                assert time.monotonic() - started < 5
        assert gateway.http.get("/health").status_code == 200, "the process is up all the same"
        server.start()
        until(
            lambda: gateway.http.post("/v1/chat/completions", json={"model": "tiny-chat", **ASK}).status_code == 200,
            FAIL_TIMEOUT_MS / 1000 + 1,
            "the only server is used again after it is back",
        )
    finally:
        server.stop()


def test_calls_beyond_the_slots_wait_their_turn(sluice_with, slow):
    """Twelve calls at once for two slots: all are answered, and the model server never sees more than two."""
    gateway = sluice_with(model("narrow", slow.url, upstream_model="tiny", max_concurrency=2, timeout_ms=30000))
    statuses, seen = [], []

    def call():
        answer = gateway.http.post("/v1/chat/completions", json={"model": "narrow", **ASK}, timeout=30)
        statuses.append((answer.status_code, float(answer.headers.get("x-sluice-queue-ms", 0))))

    until(lambda: slow.busy_slots() == 0, 10, "the model server is idle before the test")
    threads = [threading.Thread(target=call) for _ in range(12)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads) and len(seen) < 2000:
        seen.append(slow.busy_slots())
        time.sleep(0.02)
    for thread in threads:
        thread.join(timeout=30)
    assert [status for status, _ in statuses] == [200] * 12
    assert max(seen) == 2, f"at most two at a time, and two when there is work: {max(seen)}"
    assert max(waited for _, waited in statuses) > 20, "x-sluice-queue-ms shows the wait"


def test_a_full_queue_answers_503_with_retry_after(sluice_with, slow):
    gateway = sluice_with(
        model("narrow", slow.url, upstream_model="tiny", max_concurrency=1, timeout_ms=30000), scheduling={"queue_max": 1}
    )
    body = {**ASK, "model": "narrow", "max_tokens": 3000}  # the stream holds the only slot until it is closed
    with gateway.http.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as first:
        pieces = first.iter_bytes()  # kept: dropping the iterator would close the stream
        next(pieces)
        waiting = threading.Thread(target=lambda: gateway.http.post("/v1/chat/completions", json=ask_short(body)))
        waiting.start()
        time.sleep(0.3)  # by now it waits in the queue, which has room for one
        answer = gateway.http.post("/v1/chat/completions", json=ask_short(body), timeout=5)
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 0
        assert answer.json()["error"]["message"]
    waiting.join(timeout=30)


def ask_short(body):
    return {**body, "max_tokens": 2}
