"""A real OpenID provider: npm oidc-provider, see tests/parts/oidc/idp.mjs."""

import os
import pathlib

import httpx

from .process import Process, free_port
from .waiting import until

PART = pathlib.Path(__file__).resolve().parents[2] / "parts" / "oidc"
JWT, OPAQUE = "https://sluice.test", "https://opaque.test"


class Provider:
    def __init__(self, folder, ttl=300):
        assert (PART / "node_modules").is_dir(), f"{PART}/node_modules is missing: run tests/install.sh"
        self.port = free_port()
        self.issuer = f"http://127.0.0.1:{self.port}"
        env = {**os.environ, "PORT": str(self.port), "TTL": str(ttl)}
        self.process = Process("oidc", ["node", PART / "idp.mjs"], folder, env=env)
        self.http = httpx.Client(base_url=self.issuer, timeout=10)
        until(self.ready, 20, f"the OpenID provider is ready on {self.issuer}")

    def ready(self):
        self.process.must_be_alive()
        return self.http.get("/.well-known/openid-configuration").status_code == 200

    def token(self, client="team-a", resource=JWT, scope="llm.chat"):
        """An access token by client_credentials."""
        form = {"grant_type": "client_credentials", "resource": resource, "scope": scope}
        answer = self.http.post("/token", data=form, auth=(client, f"{client}-secret"))
        assert answer.status_code == 200, answer.text
        return answer.json()["access_token"]

    def revoke(self, token, client="team-a"):
        answer = self.http.post("/token/revocation", data={"token": token}, auth=(client, f"{client}-secret"))
        assert answer.status_code == 200, answer.text

    def rotate(self):
        return self.http.post("/__rotate").json()

    def retire(self):
        return self.http.post("/__retire").json()

    def asked(self, path):
        """How often a path was asked for."""
        return self.http.get("/__asked").json().get(path, 0)

    def stop(self):
        self.http.close()
        self.process.stop()
