"""A real llama-server on a port of its own, which can be killed and started again on the same port."""

import os
import pathlib
import subprocess

import httpx

from .process import Process, free_port
from .waiting import until

PARTS = pathlib.Path(__file__).resolve().parents[2] / "parts"
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "sluice-tests"
INSTALL = "run tests/install.sh"

# Token 4 ends a turn: without it an answer runs until max_tokens.
ENDLESS = {"4": -100}


def version():
    """The version line of the installed llama-server, or a failure that says how to get one."""
    found = subprocess.run([PARTS / "llama.sh", "--version"], capture_output=True, text=True, timeout=20)
    text = found.stdout + found.stderr
    if found.returncode != 0:
        raise RuntimeError(f"llama-server does not start; {INSTALL}\n{text}")
    return next((line for line in text.splitlines() if line.startswith("version")), text.strip())


class Llama:
    def __init__(self, folder, model="tiny", api_key=None):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.model = model
        self.folder = folder
        self.api_key = api_key
        self.process = None
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self.http = httpx.Client(base_url=self.url, headers=headers, timeout=10)
        self.start()

    def start(self):
        options = ["--api-key", self.api_key] if self.api_key else []
        command = [PARTS / "llama.sh", self.port, self.model, *options]
        self.process = Process(f"llama-{self.model}-{self.port}", command, self.folder)
        until(self.healthy, 30, f"llama-server on port {self.port} is healthy")

    def healthy(self):
        self.process.must_be_alive()
        return self.http.get("/health").status_code == 200

    def busy_slots(self):
        answer = self.http.get("/slots")
        answer.raise_for_status()
        return sum(slot["is_processing"] for slot in answer.json())

    def metric(self, name):
        for line in self.http.get("/metrics").text.splitlines():
            if line.startswith(f"llamacpp:{name} "):
                return float(line.split()[1])
        raise AssertionError(f"llama-server has no metric {name}")

    def predicted_tokens(self):
        """How many tokens this process has ever generated: proof that traffic really reached it."""
        return self.metric("tokens_predicted_total")

    def stop(self):
        self.http.close()
        self.process.stop()
