"""Input no SDK would send, byte for byte, and the status each gets. The server must survive all of it."""

import json
import socket

import pytest

GOOD = {"model": "tiny-chat", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}

# Bound: an answer to bad input must be there long before any of the server's own time-outs.
ANSWER_SECONDS = 10


def nested(depth):
    return b'{"model":"tiny-chat","messages":' + b"[" * depth + b"]" * depth + b"}"


BODIES = {
    "not JSON": (b"hello", 400),
    "empty": (b"", 400),
    "a JSON array": (b"[]", 400),
    "a JSON string": (b'"x"', 400),
    "cut short": (b'{"model":"tiny-chat","messages":[', 400),
    "no model": (json.dumps({"messages": GOOD["messages"]}).encode(), 400),
    "a model that is a number": (json.dumps({**GOOD, "model": 7}).encode(), 400),
    "stream that is a word": (json.dumps({**GOOD, "stream": "yes"}).encode(), 400),
    "messages that are a word": (json.dumps({**GOOD, "messages": "Hi"}).encode(), 400),
    "invalid UTF-8": (b'{"model":"tiny-chat","messages":[{"role":"user","content":"\xff\xfe"}]}', 400),
    "a NUL byte between tokens": (b'{"model":\x00"tiny-chat"}', 400),
    "a NUL byte in a string": (b'{"model":"tiny\x00chat","messages":[]}', 400),
    "200 nested arrays": (nested(200), 400),
    "33 MiB": (b'{"model":"' + b"x" * (33 << 20) + b'"}', 413),
}


def exchange(gateway, request):
    """Sends raw bytes and returns (status, rest); a server that hangs up while it is still being sent to is no fault."""
    host, port = gateway.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS) as connection:
        try:
            connection.sendall(request)
        except (BrokenPipeError, ConnectionResetError):
            pass
        received = b""
        try:
            while b"\r\n\r\n" not in received and (piece := connection.recv(65536)):
                received += piece
        except ConnectionResetError:
            pass
    assert received.startswith(b"HTTP/1.1 "), f"no HTTP answer but {received[:80]!r}"
    return int(received.split()[1]), received


def head(gateway, *lines, first="POST /v1/chat/completions HTTP/1.1"):
    fixed = ["host: localhost", f"authorization: Bearer {gateway.key}", "content-type: application/json"]
    return "\r\n".join([first, *fixed, *lines, "", ""]).encode()


@pytest.fixture(autouse=True)
def still_serving(gateway):
    """After each piece of bad input a good call works."""
    yield
    answer = gateway.http.post("/v1/chat/completions", json=GOOD)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("name", BODIES)
def test_a_bad_body_gets_its_status(gateway, name):
    body, expected = BODIES[name]
    status, _ = exchange(gateway, head(gateway, f"content-length: {len(body)}", "connection: close") + body)
    assert status == expected


def test_a_33_mib_body_in_chunks_is_refused_too(gateway):
    piece = b"x" * (1 << 20)
    body = b'a\r\n{"model":"\r\n' + (b"%x\r\n" % len(piece) + piece + b"\r\n") * 33 + b"0\r\n\r\n"
    status, _ = exchange(gateway, head(gateway, "transfer-encoding: chunked", "connection: close") + body)
    assert status == 413


def test_a_1_mib_header_is_refused(gateway):
    status, _ = exchange(gateway, head(gateway, "x-long: " + "x" * (1 << 20), "content-length: 0"))
    assert status == 431


def test_a_chunked_body_that_breaks_off_is_no_call(gateway):
    status_or_close(gateway, head(gateway, "transfer-encoding: chunked") + b'20\r\n{"model":"tiny-chat"', half_close=True)


def test_a_broken_chunk_size_is_refused(gateway):
    status_or_close(gateway, head(gateway, "transfer-encoding: chunked") + b"zz\r\n{}\r\n0\r\n\r\n")


def test_transfer_encoding_with_content_length_is_no_way_to_smuggle(gateway):
    smuggled = b"0\r\n\r\nGET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n"
    request = head(gateway, "transfer-encoding: chunked", f"content-length: {len(smuggled)}") + smuggled
    status, received = exchange(gateway, request)
    assert status == 400
    assert received.count(b"HTTP/1.1 ") == 1


def status_or_close(gateway, request, half_close=False):
    """Either a 4xx or a closed connection, but neither a hang nor a 2xx nor a 5xx."""
    host, port = gateway.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS) as connection:
        connection.sendall(request)
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        try:
            received = connection.recv(65536)
        except ConnectionResetError:
            return
    assert received == b"" or received.startswith(b"HTTP/1.1 4"), received[:200]


def test_an_unknown_path_is_404(gateway):
    answer = gateway.http.get("/v1/no-such-thing")
    assert answer.status_code == 404
    assert answer.json()["error"]["message"]


def test_a_wrong_method_is_405_and_says_which_is_right(gateway):
    answer = gateway.http.get("/v1/chat/completions")
    assert answer.status_code == 405
    assert "POST" in answer.headers["allow"]
