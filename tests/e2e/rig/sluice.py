"""The real sluice binary: its command line, and a running server."""

import json
import os
import pathlib
import re
import signal
import subprocess

import httpx

from .process import Process, free_port
from .waiting import until

ROOT = pathlib.Path(__file__).resolve().parents[3]
BUILD = "build it with `cargo build --release -p sluice` or name one in SLUICE_BIN"


def binary():
    """The sluice under test: $SLUICE_BIN, else the release build, else the debug build."""
    named = os.environ.get("SLUICE_BIN")
    builds = [pathlib.Path(named)] if named else [ROOT / "target" / kind / "sluice" for kind in ("release", "debug")]
    for path in builds:
        if path.is_file():
            return path.resolve()
    raise RuntimeError(f"no sluice at {' or '.join(map(str, builds))}; {BUILD}")


def run(*arguments, cwd=None, seconds=20):
    """One short sluice command, run to its end."""
    command = [str(binary()), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=seconds, cwd=cwd, stdin=subprocess.DEVNULL)


def create_key(data_dir, tenant="acme"):
    """A key as `sluice key create --json` prints it: id, tenant, name, key and hash."""
    made = run("key", "create", "--tenant", tenant, "--data-dir", data_dir, "--json")
    assert made.returncode == 0, made.stdout + made.stderr
    return json.loads(made.stdout)


def model(name, *instances, **fields):
    """A model of the config: one instance in the short form, several in the long form."""
    if len(instances) == 1:
        return {"model_name": name, "endpoint": instances[0], **fields}
    versions = [{"version": "v1", "instances": [{"endpoint": url} for url in instances]}]
    return {"model_name": name, "versions": versions, **fields}


class Sluice:
    """`sluice serve` on two free ports, with a config file of its own. JSON is YAML, so that is what is written."""

    def __init__(self, folder, models, tls=None, arguments=(), **sections):
        self.folder = folder
        self.config_path = folder / "sluice.yaml"
        self.data_dir = folder / "data"
        scheme = "https" if tls else "http"
        listen = {"http": f"127.0.0.1:{free_port()}", "admin": f"127.0.0.1:{free_port()}"}
        self.url, self.admin_url = f"{scheme}://{listen['http']}", f"http://{listen['admin']}"
        if tls:
            listen["tls"] = tls
        created = create_key(self.data_dir)
        self.key, self.key_id = created["key"], created["id"]
        tenants = [{"id": "acme", "keys": [{"name": "sdk", "hash": created["hash"]}]}]
        self.config = {"listen": listen, "auth": "required", "models": models, "tenants": tenants, **sections}
        self.arguments = arguments
        self.process = None
        headers = {"authorization": f"Bearer {self.key}"}
        self.http = httpx.Client(base_url=self.url, headers=headers, timeout=20, verify=False)
        self.admin = httpx.Client(base_url=self.admin_url, timeout=10)

    def start(self):
        self.write_config()
        command = [binary(), "serve", "-c", self.config_path, "--data-dir", self.data_dir, *self.arguments]
        self.process = Process("sluice", command, self.folder, cwd=self.folder)
        until(self.ready, 20, f"sluice is ready on {self.url}")
        return self

    def write_config(self, path=None):
        (path or self.config_path).write_text(json.dumps(self.config, indent=2))

    def ready(self):
        self.process.must_be_alive()
        return self.http.get("/ready").status_code == 200

    def model_names(self):
        answer = self.http.get("/v1/models")
        answer.raise_for_status()
        return {entry["id"] for entry in answer.json()["data"]}

    def metrics(self):
        """Every sample of /metrics as (name, labels as written, value)."""
        answer = self.admin.get("/metrics")
        answer.raise_for_status()
        samples = []
        for line in answer.text.splitlines():
            if line and not line.startswith("#"):
                match = re.fullmatch(r"([a-zA-Z_:][\w:]*)(\{.*\})? (\S+)( \d+)?", line)
                assert match, f"not a Prometheus sample: {line!r}"
                samples.append((match[1], match[2] or "", float(match[3])))
        return samples

    def access_log(self):
        """The JSON lines of stdout and stderr that look like one finished call: they carry a status."""
        lines = []
        for text in self.process.output().splitlines():
            if text.startswith("{"):
                entry = json.loads(text)
                if "status" in entry or "outcome" in entry:
                    lines.append(entry)
        return lines

    def hang_up(self):
        self.process.send(signal.SIGHUP)

    def stop(self):
        self.http.close()
        self.admin.close()
        return self.process.stop() if self.process else None
