"""Tokens of a real OpenID provider, client certificates made by openssl, signed requests."""

import json
import subprocess
import time

import httpx
import pytest

from rig.certificates import Authority
from rig.oidc import JWT, OPAQUE, Provider
from rig.process import Process, free_port
from rig.sluice import binary, create_key, model, run
from rig.waiting import until


@pytest.fixture
def backend(tmp_path):
    port = free_port()
    process = Process("sim", [binary(), "sim", "--port", port, "--ttft-ms", 0], tmp_path)
    yield f"http://127.0.0.1:{port}"
    process.stop()


@pytest.fixture
def provider(tmp_path):
    server = Provider(tmp_path)
    yield server
    server.stop()


@pytest.fixture
def behind(sluice_with, backend):
    """Starts a sluice with these tenants and sections."""

    def start(tenants, **sections):
        return sluice_with(model("m", backend, upstream_model="sim"), tenants=tenants, **sections)

    return start


def ask(server, token, **headers):
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    headers = {"authorization": f"Bearer {token}", **headers}
    return server.http.post("/v1/chat/completions", json=body, headers=headers)


def message(answer):
    return answer.json()["error"]["message"]


def trusting(provider, tenant, **more):
    return {"id": tenant, "jwt": {"issuer": provider.issuer, "audience": JWT, "tenant_claim": "tenant", **more}}


def test_an_access_token_says_whose_a_call_is(provider, behind):
    server = behind([trusting(provider, "acme"), trusting(provider, "lab")])
    for client, tenant in (("team-a", "acme"), ("team-b", "lab")):
        token = provider.token(client)
        assert ask(server, token).status_code == 200
        assert ask(server, token, **{"x-tenant-id": tenant}).status_code == 200
        assert ask(server, token, **{"x-tenant-id": "other"}).status_code == 403
    until(lambda: {entry.get("tenant") for entry in server.access_log()} >= {"acme", "lab"}, 5, "both are in the log")
    users = {entry.get("key") for entry in server.access_log()}
    assert {"user:team-a", "user:team-b"} <= users
    stranger = ask(server, provider.token("team-x"))
    assert stranger.status_code == 401 and "no tenant" in message(stranger)
    assert provider.asked("/jwks") == 1, "keys are asked for once, not per token"


def test_a_changed_token_is_refused_with_a_challenge(provider, behind):
    server = behind([trusting(provider, "acme")])
    token = provider.token()
    assert ask(server, token).status_code == 200
    head, claims, signature = token.split(".")
    swapped = ask(server, ".".join([head, provider.token().split(".")[1], signature]))
    assert swapped.status_code == 401
    assert 'error="invalid_token"' in swapped.headers["www-authenticate"]
    assert signature not in swapped.text and claims not in swapped.text


def test_an_expired_token_is_refused_and_says_so(tmp_path, behind):
    provider = Provider(tmp_path, ttl=1)
    try:
        server = behind([trusting(provider, "acme")])
        token = provider.token()
        assert ask(server, token).status_code == 200, "within the leeway of 30 s"
        claims = time.time()
        until(lambda: ask(server, token).status_code == 401, 40, "the leeway is over")
        assert 28 <= time.time() - claims <= 36
        assert "expired" in message(ask(server, token))
    finally:
        provider.stop()


def test_keys_are_rotated_while_calls_go_on(provider, behind):
    server = behind([trusting(provider, "acme")])
    old = provider.token()
    assert ask(server, old).status_code == 200
    provider.rotate()
    new = provider.token()
    # The provider was asked at the start; ten seconds later it may be asked because of a key that is not here.
    until(lambda: ask(server, new).status_code == 200, 15, "the new key is fetched because a token names it")
    assert ask(server, old).status_code == 200, "the old key is still shown"
    assert provider.asked("/jwks") == 2
    provider.retire()
    provider.rotate()
    newest = provider.token()
    until(lambda: ask(server, newest).status_code == 200, 15, "the newest key is fetched")
    assert ask(server, old).status_code == 401, "its key is gone, though it was verified before"


def test_a_stopped_provider_stops_nobody(provider, behind):
    server = behind([trusting(provider, "acme")], issuers={"keys_ttl_ms": 10_000})
    tokens = [provider.token() for _ in range(2)]
    assert ask(server, tokens[0]).status_code == 200
    provider.process.kill()
    until(lambda: "keys cannot be had" in server.process.output(), 15, "the provider is missed")
    for token in tokens:
        assert ask(server, token).status_code == 200, "also one that was never seen before"


def test_without_any_keys_a_token_can_wait(behind, tmp_path):
    port = free_port()
    jwt = {"issuer": f"http://127.0.0.1:{port}", "audience": JWT}
    server = behind([{"id": "acme", "jwt": jwt}])
    head = "eyJhbGciOiJSUzI1NiIsImtpZCI6ImsxIn0"
    claims = subprocess.run(
        ["basenc", "--base64url", "-w0"],
        input=json.dumps({"iss": jwt["issuer"]}), capture_output=True, text=True, check=True,
    ).stdout.rstrip("=")  # fmt: skip
    answer = ask(server, f"{head}.{claims}.AAAA")
    assert answer.status_code == 503 and "keys" in message(answer)
    assert answer.headers["retry-after"]


def test_opaque_tokens_are_asked_about_once(provider, behind):
    tenant = {"id": "acme", "jwt": {"issuer": provider.issuer, "audience": OPAQUE, "clients": ["team-a"]}}
    introspection = {
        "url": f"{provider.issuer}/token/introspection", "issuer": provider.issuer,
        "client_id": "sluice", "client_secret": "sluice-secret", "ttl_ms": 1500, "negative_ttl_ms": 500,
    }  # fmt: skip
    server = behind([tenant], introspection=introspection)
    token = provider.token(resource=OPAQUE)
    assert "." not in token
    for _ in range(5):
        assert ask(server, token).status_code == 200
    assert provider.asked("/token/introspection") == 1
    assert ask(server, "made-up-token").status_code == 401
    assert ask(server, provider.token("team-b", OPAQUE)).status_code == 401, "of a client that is no tenant's"
    provider.revoke(token)
    until(lambda: ask(server, token).status_code == 401, 5, "a revoked token is refused when its time is over")
    another = provider.token(resource=OPAQUE)
    assert ask(server, another).status_code == 200
    provider.process.kill()
    until(lambda: ask(server, another).status_code == 503, 5, "nobody says whether it is still good")


def test_scopes_of_a_token_are_scopes_here(provider, behind):
    more = {"scope_claim": "scope", "scopes": {"llm.chat": "inference"}}
    server = behind([trusting(provider, "acme", **more)])
    assert ask(server, provider.token(scope="llm.chat")).status_code == 200


def tls_of(authority, folder, **more):
    certificate, key = Authority(folder / "server").issue("server", "DNS:localhost,IP:127.0.0.1", "serverAuth")
    return {"cert": certificate, "key": key, "client_ca": authority.path, **more}


def connect(server, pair=None, key=None):
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return httpx.Client(base_url=server.url, cert=pair, verify=False, timeout=10, headers=headers)


def test_a_client_certificate_says_whose_a_call_is(tmp_path, behind):
    authority = Authority(tmp_path / "pki")
    spiffe = authority.issue("spiffe", "URI:spiffe://example.org/training")
    dns = authority.issue("dns", "DNS:Batch.example.org")
    pinned = authority.issue("pinned", "DNS:anything.example.org")
    unknown = authority.issue("unknown", "DNS:unknown.example.org")
    tenants = [
        {"id": "acme", "certificates": [{"san": "spiffe://example.org/training"}, {"dns": "batch.example.org"}]},
        {"id": "lab", "certificates": [{"fingerprint": authority.fingerprint("pinned")}]},
    ]
    server = behind(tenants, tls=tls_of(authority, tmp_path, client_auth="optional"))
    for pair, tenant in ((spiffe, "acme"), (dns, "acme"), (pinned, "lab")):
        with connect(server, pair) as client:
            assert client.get("/v1/models").status_code == 200
            assert client.get("/v1/models", headers={"x-tenant-id": tenant}).status_code == 200
            assert client.get("/v1/models", headers={"x-tenant-id": "other"}).status_code == 403
    with connect(server, unknown) as client:
        answer = client.get("/v1/models")
        assert answer.status_code == 401 and "belongs to no tenant" in message(answer)
    with connect(server) as client:
        assert client.get("/v1/models").status_code == 401


def test_only_genuine_certificates_that_were_not_taken_back_connect(tmp_path, behind):
    authority, forger = Authority(tmp_path / "pki"), Authority(tmp_path / "forger")
    good = authority.issue("good", "DNS:good.example.org")
    gone = authority.issue("gone", "DNS:good.example.org")
    forged = forger.issue("forged", "DNS:good.example.org")
    wrong_use = authority.issue("server-only", "DNS:good.example.org", "serverAuth")
    tenants = [{"id": "acme", "certificates": [{"dns": "good.example.org"}]}]
    tls = tls_of(authority, tmp_path, client_auth="optional", client_crl=[authority.revoked("gone")])
    server = behind(tenants, tls=tls)
    with connect(server, good) as client:
        assert client.get("/v1/models").status_code == 200
    for name, pair in (("revoked", gone), ("forged", forged), ("for servers", wrong_use)):
        with connect(server, pair) as client, pytest.raises(httpx.TransportError):
            client.get("/v1/models")
            pytest.fail(f"let in: {name}")


def test_a_required_certificate_is_required_from_the_reload_on(tmp_path, behind):
    authority = Authority(tmp_path / "pki")
    pair = authority.issue("client", "DNS:client.example.org")
    tenants = [{"id": "acme", "certificates": [{"dns": "client.example.org"}]}]
    server = behind(tenants, tls=tls_of(authority, tmp_path, client_auth="optional"))

    def reachable(*credentials):
        try:
            with connect(server, *credentials) as client:
                return client.get("/health").status_code == 200
        except httpx.TransportError:
            return False

    assert reachable()
    server.config["listen"]["tls"]["client_auth"] = "required"
    server.write_config()
    server.hang_up()
    until(lambda: not reachable(), 10, "nobody connects without a certificate")
    assert reachable(pair)


def test_a_request_signed_on_the_command_line_is_let_in_once(tmp_path, behind, backend):
    server = behind([{"id": "acme", "keys": []}, {"id": "other", "keys": []}])
    made = create_key(server.data_dir)
    server.config["tenants"][0]["keys"] = [{"name": "k", "hash": made["hash"], "signed": True}]
    server.write_config()
    server.hang_up()
    secret = run("key", "signing-secret", made["id"], "--data-dir", server.data_dir).stdout
    (tmp_path / "secret").write_text(secret)
    (tmp_path / "body.json").write_text(json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]}))
    url = f"{server.url}/v1/chat/completions"

    def signed(*more):
        command = ["sign", "--key-id", made["id"], "--secret-file", "secret", "--body", "body.json", *more, "POST", url]
        printed = run(*command, cwd=tmp_path)
        assert printed.returncode == 0, printed.stderr
        return printed.stdout.strip()

    def curl():
        command = signed("--curl") + " -s -o answer -w '%{http_code}'"
        return subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=20).stdout

    until(lambda: curl() == "200", 10, "the key is in force")
    headers = dict(line.split(": ", 1) for line in signed().splitlines())
    body = (tmp_path / "body.json").read_bytes()
    headers["content-type"] = "application/json"
    with httpx.Client(timeout=10) as client:
        assert client.post(url, content=body, headers=headers).status_code == 200
        again = client.post(url, content=body, headers=headers)
        assert again.status_code == 401 and "used before" in message(again)
        plain = client.post(url, content=body, headers={"authorization": f"Bearer {made['key']}"})
        assert plain.status_code == 401 and "must be signed" in message(plain)
