"""What a person at a shell sees.

Without a config file sluice listens on its default ports, so 8080 and 8090 must be free here.
"""

import json
import os
import re
import subprocess

import httpx
import pytest

from rig import sluice as sluice_part
from rig.process import Process, free_port
from rig.waiting import until


@pytest.fixture
def without_config(tmp_path):
    """Runs `sluice serve` in an empty folder, with no provider key in the environment."""
    started = []

    def serve(*arguments):
        kept = {name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")}
        command = [sluice_part.binary(), "serve", *arguments, "--data-dir", tmp_path / "data"]
        server = Process("sluice-bare", command, tmp_path, env=kept, cwd=tmp_path)
        started.append(server)
        return server

    yield serve
    for server in started:
        server.stop()


def banner_curl(server):
    """The curl of the banner, with its continued lines."""
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip() for line in server.output().splitlines()]
    start = next((i for i, line in enumerate(lines) if re.match(r"(\$ )?curl ", line)), None)
    if start is None:
        return None
    end = start
    while lines[end].endswith("\\") and end + 1 < len(lines):
        end += 1
    return "\n".join(lines[start : end + 1]).removeprefix("$ ")


def banner_url(server):
    """The address of the data port, as the printed curl has it."""
    server.must_be_alive()
    found = re.search(r"https?://[^/\s]+:\d+", banner_curl(server) or "")
    return found and found[0]


def run_printed_curl(server):
    command = until(lambda: banner_curl(server), 5, "the banner has a curl command")
    url = banner_url(server)
    until(lambda: httpx.get(f"{url}/ready", timeout=2).status_code == 200, 10, f"{url} is ready")
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, f"{command}\n{done.stderr}"
    return command, done.stdout


def test_a_backend_is_detected_and_the_printed_curl_works(without_config, tiny):
    server = without_config("--backend", tiny.url)
    _, answer = run_printed_curl(server)
    assert '"choices"' in answer or "data: {" in answer, answer
    assert re.search(r"llama\.?cpp", server.output(), re.IGNORECASE), "the banner names what it found"
    assert tiny.url in server.output() or str(tiny.port) in server.output()
    names = {entry["id"] for entry in httpx.get(banner_url(server) + "/v1/models", timeout=5).json()["data"]}
    assert "tiny" in names, "the model is known by the name the backend gives it"


def test_without_config_and_backend_the_simulator_answers_and_says_so(without_config):
    server = without_config()
    _, answer = run_printed_curl(server)
    assert '"choices"' in answer or "data: {" in answer, answer
    assert re.search(r"simulat", server.output(), re.IGNORECASE)


def test_without_credentials_only_loopback_is_served(without_config, tiny):
    server = without_config("--backend", tiny.url)
    url = until(lambda: banner_url(server), 5, "the banner has a URL")
    port = int(url.rsplit(":", 1)[1])
    until(lambda: httpx.get(f"{url}/health", timeout=2).status_code == 200, 10, "it answers")
    for table, any_address in (("/proc/net/tcp", "0" * 8), ("/proc/net/tcp6", "0" * 32)):
        with open(table) as lines:
            listening = [line.split()[1] for line in lines if len(line.split()) > 3 and line.split()[3] == "0A"]
        assert f"{any_address}:{port:04X}" not in listening, f"{port} is open to the world"


def test_a_backend_that_is_not_there_is_said_plainly(without_config):
    server = without_config("--backend", f"http://127.0.0.1:{free_port()}")
    until(lambda: re.search(r"nothing answers", server.output(), re.IGNORECASE), 15, "it is said")


BAD = """\
listen: { http: 127.0.0.1:8080 }
models:
  - model_name: one
    endpiont: http://127.0.0.1:9000
"""


def check(folder, text):
    path = folder / "bad.yaml"
    path.write_text(text)
    done = sluice_part.run("check", "-c", path)
    return done.returncode, done.stdout + done.stderr


def test_check_points_at_the_fault_and_suggests_the_right_key(tmp_path):
    code, output = check(tmp_path, BAD)
    assert code == 1
    assert re.search(r"bad\.yaml:4:\d+", output), output
    assert "endpiont" in output and re.search(r"\bendpoint\b", output), output


def test_check_points_at_broken_yaml(tmp_path):
    code, output = check(tmp_path, "models:\n  - model_name: [one\nlisten: {}\n")
    assert code == 1
    assert re.search(r"bad\.yaml:\d+:\d+", output), output


def test_check_reports_every_fault_at_once(tmp_path):
    text = BAD + "  - model_name: two\n    endpoint: http://127.0.0.1:9000\n    balance: by_mood\nscheduling: { queue_max: -1 }\n"
    code, output = check(tmp_path, text)
    assert code == 1
    assert {int(line) for line in re.findall(r"bad\.yaml:(\d+):\d+", output)} >= {4, 7, 8}, output


def test_check_of_a_missing_file_and_of_a_missing_variable_fails(tmp_path):
    assert sluice_part.run("check", "-c", tmp_path / "none.yaml").returncode != 0
    code, output = check(tmp_path, "models:\n  - { model_name: a, endpoint: 'http://x:1', api_key: '${NO_SUCH_VARIABLE_HERE}' }\n")
    assert code == 1
    assert "NO_SUCH_VARIABLE_HERE" in output


def test_check_passes_a_good_file(tmp_path):
    code, output = check(tmp_path, BAD.replace("endpiont", "endpoint") + "auth: none\n")
    assert code == 0, output


def test_serve_refuses_a_bad_file_in_the_same_words(tmp_path):
    (tmp_path / "bad.yaml").write_text(BAD)
    done = sluice_part.run("serve", "-c", tmp_path / "bad.yaml", "--data-dir", tmp_path / "data")
    assert done.returncode == 1
    assert re.search(r"bad\.yaml:4:\d+", done.stdout + done.stderr)


def test_an_open_address_without_keys_is_refused_unless_it_is_said_on_purpose(tmp_path):
    port = free_port()
    text = f"listen: {{ http: '0.0.0.0:{port}' }}\nmodels:\n  - {{ model_name: one, endpoint: 'http://127.0.0.1:9' }}\n"
    code, output = check(tmp_path, text)
    assert code == 1 and "auth" in output, output
    code, output = check(tmp_path, text + "auth: none\n")
    assert code == 0, output


def test_the_schema_is_json_schema_and_knows_the_models(tmp_path):
    done = sluice_part.run("schema")
    assert done.returncode == 0, done.stderr
    schema = json.loads(done.stdout)
    assert "models" in schema["properties"]


def test_a_key_is_printed_once_and_kept_nowhere(tmp_path):
    first, second = sluice_part.create_key(tmp_path), sluice_part.create_key(tmp_path)
    assert first["key"].startswith("sk-sluice-")
    assert first["tenant"] == "acme"
    assert first["key"] != second["key"] and first["hash"] != second["hash"]
    assert first["key"] not in first["hash"]
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert first["key"].encode() not in path.read_bytes(), path
            assert path.stat().st_mode & 0o077 == 0, f"{path} is for its owner only"


def test_version_and_help_are_short_and_succeed():
    assert re.match(r"sluice \d+\.\d+\.\d+", sluice_part.run("--version").stdout)
    assert "serve" in sluice_part.run("--help").stdout
