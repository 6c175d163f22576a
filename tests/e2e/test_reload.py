"""The config file changes under a running server."""

import os
import threading
import time

import pytest

from rig.llama import ENDLESS
from rig.sluice import Sluice, model
from rig.waiting import until

SEEN_SECONDS = 3
# By its name in the metrics: whatever counts reloads, by result.
FAILED = ("fail", "error", "rejected", "invalid", "refused", "bad")


def names_become(server, expected):
    until(lambda: server.model_names() == expected, SEEN_SECONDS, f"/v1/models shows {sorted(expected)}")


def failed_reloads(server):
    return sum(
        value
        for name, labels, value in server.metrics()
        if "reload" in name and name.endswith("_total") and any(word in (name + labels).lower() for word in FAILED)
    )


@pytest.fixture
def server(sluice_with, tiny):
    return sluice_with(model("one", tiny.url, upstream_model="tiny"))


def test_a_model_written_into_the_file_is_there_soon_and_answers(server, tiny):
    assert server.model_names() == {"one"}
    server.config["models"].append(model("two", tiny.url, upstream_model="tiny"))
    server.write_config()
    names_become(server, {"one", "two"})
    body = {"model": "two", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    assert server.http.post("/v1/chat/completions", json=body).status_code == 200


def test_a_model_taken_out_of_the_file_is_gone(server, tiny):
    server.config["models"] = [model("two", tiny.url)]
    server.write_config()
    names_become(server, {"two"})
    body = {"model": "one", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    assert server.http.post("/v1/chat/completions", json=body).status_code == 404


def test_a_file_replaced_by_rename_is_seen_every_time(server, tiny):
    for name in ("two", "three", "four"):  # more than once: the first rename must not be the last that is noticed
        server.config["models"].append(model(name, tiny.url))
        beside = server.folder / "sluice.yaml.new"
        server.write_config(beside)
        os.rename(beside, server.config_path)
        names_become(server, {entry["model_name"] for entry in server.config["models"]})


def test_a_symlink_swap_as_kubernetes_does_it_is_seen_every_time(tmp_path, tiny):
    """A mounted ConfigMap: sluice.yaml -> ..data/sluice.yaml, ..data -> a dated folder, and only ..data is swapped."""
    server = Sluice(tmp_path, [model("one", tiny.url)])
    mount = tmp_path / "mount"
    mount.mkdir()

    def publish(dated):
        (mount / dated).mkdir()
        server.write_config(mount / dated / "sluice.yaml")
        os.symlink(dated, mount / "..data_tmp")
        old = os.readlink(mount / "..data") if (mount / "..data").is_symlink() else None
        os.rename(mount / "..data_tmp", mount / "..data")
        if old:
            (mount / old / "sluice.yaml").unlink()
            (mount / old).rmdir()

    publish("..2026_01_01")
    os.symlink("..data/sluice.yaml", mount / "sluice.yaml")
    server.config_path = mount / "sluice.yaml"
    server.write_config = lambda path=None: None  # start() must not write through the link
    try:
        server.start()
        del server.write_config
        for number, name in enumerate(("two", "three"), start=2):
            server.config["models"].append(model(name, tiny.url))
            publish(f"..2026_01_0{number}")
            names_become(server, {entry["model_name"] for entry in server.config["models"]})
    finally:
        server.stop()


@pytest.mark.parametrize(
    "text, hint",
    [
        ("models: [", "sluice.yaml:"),
        ("modles: []\n", "models"),
        ("models:\n  - model_name: one\n    endpoint: not a url\n", "sluice.yaml:3"),
        ("", "sluice.yaml"),
    ],
    ids=["broken YAML", "a misspelt key", "a bad value", "an empty file"],
)
def test_a_bad_file_changes_nothing_and_is_reported(server, tiny, text, hint):
    good, before = server.config_path.read_text(), failed_reloads(server)
    server.config_path.write_text(text)
    until(lambda: failed_reloads(server) > before, SEEN_SECONDS, "/metrics counts a failed reload")
    assert server.model_names() == {"one"}
    until(lambda: hint in server.process.output(), 2, f"the log says {hint!r}")
    server.process.must_be_alive()
    # And a good file after it is taken again.
    server.config["models"].append(model("two", tiny.url))
    server.write_config()
    assert server.config_path.read_text() != good
    names_become(server, {"one", "two"})


def test_a_deleted_file_changes_nothing(server, tiny):
    server.config_path.unlink()
    time.sleep(1)
    assert server.model_names() == {"one"}
    server.process.must_be_alive()
    server.config["models"].append(model("two", tiny.url))
    server.write_config()
    names_become(server, {"one", "two"})


def test_sighup_reads_the_file_again(server, tiny):
    server.config["models"].append(model("two", tiny.url))
    server.write_config()
    server.hang_up()
    names_become(server, {"one", "two"})
    for _ in range(5):  # with nothing changed it must do no harm
        server.hang_up()
    until(lambda: server.model_names() == {"one", "two"}, 2, "the server is well after five SIGHUPs")
    server.process.must_be_alive()


def test_a_key_taken_out_of_the_file_stops_working(server):
    kept = server.config["tenants"]
    server.config["tenants"] = [{"id": "acme", "keys": []}]
    server.write_config()
    until(lambda: server.http.get("/v1/models").status_code == 401, SEEN_SECONDS, "the removed key is refused")
    server.config["tenants"] = kept
    server.write_config()
    until(lambda: server.http.get("/v1/models").status_code == 200, SEEN_SECONDS, "the key works again")


def test_a_stream_begun_before_a_reload_finishes(sluice_with, slow, tiny):
    server = sluice_with(model("long", slow.url, upstream_model="tiny", timeout_ms=30000))
    body = {
        "model": "long",
        "messages": [{"role": "user", "content": "Hello there"}],
        "max_tokens": 500,
        "logit_bias": ENDLESS,
        "stream": True,
    }
    with server.http.stream("POST", "/v1/chat/completions", json=body) as stream:
        lines = stream.iter_lines()
        first = next(lines)
        server.config["models"] = [model("other", tiny.url)]  # the streaming model is gone from the new config
        server.write_config()
        names_become(server, {"other"})
        rest = [line for line in lines if line]
    assert first.startswith("data: ")
    assert len(rest) > 300, "the stream was still young when the reload came"
    assert rest[-1] == "data: [DONE]"
    assert '"finish_reason":"length"' in "".join(rest)


def test_calls_during_fifty_reloads_all_succeed(server, tiny):
    statuses, stopping = [], threading.Event()

    def call():
        body = {"model": "one", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
        while not stopping.is_set():
            statuses.append(server.http.post("/v1/chat/completions", json=body).status_code)

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for number in range(50):
            server.config["models"][1:] = [model(f"extra-{number}", tiny.url)]
            server.write_config()
            time.sleep(0.03)
        names_become(server, {"one", "extra-49"})
    finally:
        stopping.set()
        for thread in threads:
            thread.join(timeout=20)
    assert len(statuses) > 50
    assert set(statuses) == {200}
