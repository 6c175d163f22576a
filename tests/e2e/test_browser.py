"""Calls from a page in a real browser, which asks first whether it may."""

import functools
import http.server
import json
import os
import pathlib
import subprocess
import threading

import pytest

from rig.sluice import model

NODE = pathlib.Path(__file__).resolve().parents[1] / "sdk" / "node"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """An empty page of an origin of its own."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "index.html").write_text("<!doctype html><title>page</title>")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def browse(page, server):
    env = {
        **os.environ,
        "PAGE_URL": page,
        "SLUICE_URL": server.url,
        "SLUICE_KEY": server.key,
        "SLUICE_MODEL": "chat",
    }
    done = subprocess.run(["node", "browser.mjs"], cwd=NODE, env=env, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, f"{done.stderr}\n(no browser? run tests/install.sh)"
    return json.loads(done.stdout)


def test_a_page_of_a_listed_origin_calls_streams_and_reads_refusals(sluice_with, tiny, page):
    chat = model("chat", tiny.url, upstream_model="tiny")
    seen = browse(page, sluice_with(chat, cors={"origins": [page]}))
    assert seen["whole"]["status"] == 200 and seen["whole"]["words"] == "chat.completion"
    assert seen["whole"]["id"], "x-request-id is there for the page to read"
    assert seen["stream"] == {"status": 200, "done": True}
    assert seen["refused"] == {"status": 401, "code": "invalid_api_key"}


def test_a_page_of_another_origin_is_blocked_before_it_has_sent_anything(sluice_with, tiny, page):
    chat = model("chat", tiny.url, upstream_model="tiny")
    server = sluice_with(chat, cors={"origins": ["https://app.example.com"]})
    seen = browse(page, server)
    assert all("blocked" in result for result in seen.values()), seen
    assert {line["method"] for line in server.access_log()} == {"OPTIONS"}, "only the question came"
