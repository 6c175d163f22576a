"""A plain TCP relay in front of a server, which sees what a gateway does to its connections.

llama-server itself does not notice that the caller of a call without streaming has gone, so only the connection can
tell whether the gateway gave it up.
"""

import dataclasses
import socket
import threading
import time
import urllib.parse

from .process import free_port

# Bound: far more connections than any test makes.
BACKLOG = 128


@dataclasses.dataclass
class Connection:
    received: bytes = b""  # the first bytes the gateway sent, enough to recognise a call
    closed_at: float | None = None  # when the gateway closed or reset it


class Relay:
    def __init__(self, target):
        parts = urllib.parse.urlsplit(target)
        self.target = (parts.hostname, parts.port)
        self.connections = []
        self.listener = socket.create_server(("127.0.0.1", free_port()), backlog=BACKLOG)
        self.url = "http://127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def calls(self, marker):
        """The connections on which `marker` was sent."""
        return [connection for connection in self.connections if marker in connection.received]

    def close(self):
        self.listener.close()

    def _accept(self):
        while True:
            try:
                downstream, _ = self.listener.accept()
            except OSError:
                return
            try:
                upstream = socket.create_connection(self.target, timeout=5)
            except OSError:
                downstream.close()
                continue
            upstream.settimeout(None)
            seen = Connection()
            self.connections.append(seen)
            threading.Thread(target=self._there, args=(seen, downstream, upstream), daemon=True).start()
            threading.Thread(target=self._back, args=(downstream, upstream), daemon=True).start()

    def _there(self, seen, downstream, upstream):
        try:
            while piece := downstream.recv(65536):
                seen.received = (seen.received + piece)[:16384]
                upstream.sendall(piece)
        except OSError:
            pass
        seen.closed_at = time.monotonic()
        _shut(upstream)

    def _back(self, downstream, upstream):
        try:
            while piece := upstream.recv(65536):
                downstream.sendall(piece)
        except OSError:
            pass
        _shut(downstream)


def _shut(connection):
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
