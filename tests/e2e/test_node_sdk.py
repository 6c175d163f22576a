"""OpenAI's Node SDK: the tests are in tests/sdk/node, this runs them and shows what failed."""

import os
import pathlib
import subprocess

import pytest

NODE = pathlib.Path(__file__).resolve().parents[1] / "sdk" / "node"
FILES = sorted(path.name for path in NODE.glob("*.test.mjs"))

pytestmark = pytest.mark.direct


def test_there_are_node_tests_and_their_sdk_is_installed():
    assert FILES
    assert (NODE / "node_modules" / "openai").is_dir(), "run tests/install.sh"


@pytest.mark.parametrize("name", FILES)
def test_the_node_sdk(name, endpoint, slow_endpoint, request):
    direct = request.config.getoption("direct")
    env = {
        **os.environ,
        "SLUICE_URL": endpoint.base_url,
        "SLUICE_SLOW_URL": slow_endpoint.base_url,
        "SLUICE_KEY": endpoint.key,
        "SLUICE_MODEL": endpoint.model,
        "SLUICE_SLOW_MODEL": slow_endpoint.model,
        "SLUICE_SLOTS_URL": slow_endpoint.server.url,
        "SLUICE_DIRECT": "1" if direct else "",
    }
    command = ["node", "--test", "--test-reporter=spec", name]
    done = subprocess.run(command, cwd=NODE, env=env, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, f"node --test {name}:\n{done.stdout}\n{done.stderr}"
    assert "ℹ pass 0" not in done.stdout, done.stdout
