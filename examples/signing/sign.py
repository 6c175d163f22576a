#!/usr/bin/env python3
"""Sign a request to Sluice: RFC 9421 with HMAC-SHA256. Standard library only.

    SLUICE_SIGNING_SECRET=sk-sign-... python3 sign.py KEY_ID URL BODY_FILE   sends a POST, prints the answer
    python3 sign.py --vectors vectors.json                                   checks itself
"""

import base64
import hashlib
import hmac
import json
import os
import secrets
import sys
import time
import urllib.parse
import urllib.request


def sign(key_id, secret, method, url, body=None, created=None, lifetime=60, nonce=None):
    """The headers to send with the request."""
    parts = urllib.parse.urlsplit(url)
    own_port = {"https": 443, "http": 80}[parts.scheme]
    authority = parts.hostname.lower() if ":" not in parts.hostname else f"[{parts.hostname}]"
    if parts.port and parts.port != own_port:
        authority += f":{parts.port}"
    created = int(time.time()) if created is None else created
    covered = [("@method", method), ("@authority", authority), ("@path", parts.path or "/"), ("@query", f"?{parts.query}")]
    headers = {}
    if body is not None:
        headers["content-digest"] = f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"
        covered.append(("content-digest", headers["content-digest"]))
    names = " ".join(f'"{name}"' for name, _ in covered)
    parameters = (
        f'({names});created={created};expires={created + lifetime};nonce="{nonce or secrets.token_urlsafe(16)}"'
        f';keyid="{key_id}";alg="hmac-sha256"'
    )
    base = "".join(f'"{name}": {value}\n' for name, value in covered) + f'"@signature-params": {parameters}'
    # The secret's own characters are the key: nothing is decoded.
    tag = hmac.new(secret.encode(), base.encode(), hashlib.sha256).digest()
    headers["signature-input"] = f"sluice={parameters}"
    headers["signature"] = f"sluice=:{base64.b64encode(tag).decode()}:"
    return headers


def check(path):
    for vector in json.load(open(path)):
        body = vector["body"].encode() if vector["body"] is not None else None
        made = sign(
            vector["key_id"], vector["secret"], vector["method"], vector["url"], body,
            vector["created"], vector["lifetime"], vector["nonce"],
        )  # fmt: skip
        assert made == vector["headers"], f"{vector['name']}: {made}"
    print("all vectors agree")


if __name__ == "__main__":
    if sys.argv[1] == "--vectors":
        check(sys.argv[2])
    else:
        key_id, url, file = sys.argv[1:]
        body = open(file, "rb").read()
        headers = sign(key_id, os.environ["SLUICE_SIGNING_SECRET"], "POST", url, body)
        request = urllib.request.Request(url, body, {"content-type": "application/json", **headers})
        print(urllib.request.urlopen(request).read().decode())
