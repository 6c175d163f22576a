"""One listener, several protocols."""

import concurrent.futures
import json
import ssl
import subprocess

import httpx
import openai
import pytest

from rig.sluice import model
from rig.waiting import until

ASK = {"messages": [{"role": "user", "content": "Hello there"}], "max_tokens": 8, "temperature": 0}


def curl(*arguments):
    done = subprocess.run(["curl", "-sS", "--max-time", "20", *arguments], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_http1_connections_are_kept_alive(gateway):
    host = gateway.url.removeprefix("http://")
    body = json.dumps({"model": "tiny-chat", **ASK})
    call = [f"http://{host}/v1/chat/completions", "-H", f"authorization: Bearer {gateway.key}", "-d", body, "-o", "/dev/null"]
    made = curl("-w", "%{num_connects} ", *call, "--next", "-sS", "--max-time", "20", "-w", "%{num_connects} ", *call)
    assert made.split() == ["1", "0"]


def test_http2_with_prior_knowledge_answers_and_streams(gateway):
    headers = {"authorization": f"Bearer {gateway.key}"}
    with httpx.Client(http1=False, http2=True, base_url=gateway.url, headers=headers, timeout=20) as http:
        whole = http.post("/v1/chat/completions", json={"model": "tiny-chat", **ASK})
        assert (whole.http_version, whole.status_code) == ("HTTP/2", 200)
        assert whole.json()["choices"][0]["message"]["content"]
        with http.stream("POST", "/v1/chat/completions", json={"model": "tiny-chat", "stream": True, **ASK}) as stream:
            lines = [line for line in stream.iter_lines() if line]
        assert lines[-1] == "data: [DONE]"
        assert http.get("/v1/no-such-thing").status_code == 404


def test_http2_with_prior_knowledge_works_with_curl(gateway):
    version = curl("--http2-prior-knowledge", "-o", "/dev/null", "-w", "%{http_version} %{http_code}", f"{gateway.url}/health")
    assert version == "2 200"


def test_many_http2_calls_share_one_connection(gateway):
    headers = {"authorization": f"Bearer {gateway.key}"}
    limits = httpx.Limits(max_connections=1)
    with httpx.Client(
        http1=False, http2=True, base_url=gateway.url, headers=headers, timeout=20, limits=limits
    ) as http, concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: http.post("/v1/chat/completions", json={"model": "tiny-chat", **ASK}), range(24)))
    assert {answer.status_code for answer in answers} == {200}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    files = {"cert": str(folder / "cert.pem"), "key": str(folder / "key.pem")}
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        + ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
        + ["-addext", "basicConstraints=critical,CA:FALSE", "-addext", "extendedKeyUsage=serverAuth"]
        + ["-keyout", files["key"], "-out", files["cert"]],
        check=True,
        capture_output=True,
        timeout=30,
    )
    return files


@pytest.fixture
def secure(sluice_with, tiny, certificate):
    return sluice_with(model("tiny-chat", tiny.url), tls=certificate)


def test_tls_negotiates_http2_and_http1_by_alpn(secure):
    for option, version in (("--http2", "2"), ("--http1.1", "1.1")):
        written = curl(option, "-k", "-o", "/dev/null", "-w", "%{http_version} %{http_code}", f"{secure.url}/ready")
        assert written == f"{version} 200"


def test_the_sdk_works_over_tls_with_the_certificate_checked(secure, certificate):
    context = ssl.create_default_context(cafile=certificate["cert"])
    with openai.DefaultHttpxClient(verify=context) as http:
        client = openai.OpenAI(base_url=secure.url + "/v1", api_key=secure.key, max_retries=0, timeout=20, http_client=http)
        stream = client.chat.completions.create(model="tiny-chat", stream=True, **ASK)
        assert "".join(choice.delta.content or "" for chunk in stream for choice in chunk.choices)


def test_plain_http_on_a_tls_port_is_refused_and_harms_nobody(secure):
    try:
        answer = httpx.get(secure.url.replace("https", "http") + "/health", timeout=10)
    except httpx.HTTPError:
        pass  # closed, or answered with a TLS alert
    else:
        assert answer.status_code == 400
    until(secure.ready, 5, "TLS clients are still served")
