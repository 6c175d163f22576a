"""Real servers for the tests: llama-server behind the real sluice binary.

    pytest tests/e2e             everything, through sluice
    pytest tests/e2e --direct    only what must hold for a model server too, against llama-server without sluice

A missing part is a failure that says how to get it, never a skip.
"""

import dataclasses

import openai
import pytest

from rig import llama as llama_part
from rig import process
from rig import sluice as sluice_part
from rig.llama import Llama
from rig.sluice import Sluice, model

# Bound: no test needs more; one that hangs is shown with the stacks of all its threads.
TEST_SECONDS = 60


def pytest_addoption(parser):
    parser.addoption("--direct", action="store_true", help="against llama-server itself, without sluice")


def pytest_configure(config):
    config.addinivalue_line("markers", "direct: also holds without sluice, so --direct runs it")
    config.option.timeout = config.option.timeout or TEST_SECONDS


def pytest_report_header(config):
    lines = [f"llama.cpp: {_or_reason(llama_part.version)}"]
    if not config.getoption("direct"):
        lines.append(f"sluice: {_or_reason(sluice_part.binary)} {_or_reason(_sluice_version)}")
    return lines


def _sluice_version():
    return sluice_part.run("--version").stdout.strip()


def _or_reason(find):
    try:
        return find()
    except Exception as error:  # shown here, and again as the failure of every test that needs it
        return f"MISSING ({error})"


def pytest_collection_modifyitems(config, items):
    if config.getoption("direct"):
        kept = [item for item in items if item.get_closest_marker("direct")]
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Adds the end of every server's output to the report of a failed test."""
    report = (yield).get_result()
    if report.failed:
        for server in process.running:
            report.sections.append((f"{server.name} (pid {server.pid})", server.tail()))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A model server that answers at once."""
    server = Llama(tmp_path_factory.mktemp("tiny"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def slow(tmp_path_factory):
    """A model server whose streams last seconds."""
    server = Llama(tmp_path_factory.mktemp("slow"), "slow")
    yield server
    server.stop()


@dataclasses.dataclass
class Endpoint:
    """Where a test sends its calls: an OpenAI-compatible base address, a key, and a model name known there."""

    base_url: str
    key: str
    model: str
    server: Llama

    def client(self, **options):
        # No retries of its own: the tests are about what the gateway does.
        options = {"api_key": self.key, "max_retries": 0, "timeout": 20, **options}
        return openai.OpenAI(base_url=self.base_url + "/v1", **options)


@pytest.fixture
def sluice_with(tmp_path):
    """Starts a sluice with the given models; see rig.sluice.Sluice."""
    started = []

    def start(*models, **sections):
        folder = tmp_path / f"sluice-{len(started)}"
        folder.mkdir()
        server = Sluice(folder, list(models), **sections)
        started.append(server)
        return server.start()

    yield start
    for server in started:
        server.stop()


@pytest.fixture(scope="session")
def gateway(tmp_path_factory, request):
    """One sluice for all tests that change nothing: models tiny-chat and slow-chat. None with --direct."""
    if request.config.getoption("direct"):
        yield None
        return
    tiny, slow = request.getfixturevalue("tiny"), request.getfixturevalue("slow")
    models = [
        model("tiny-chat", tiny.url, upstream_model="tiny", max_concurrency=16, timeout_ms=20000),
        model("slow-chat", slow.url, upstream_model="tiny", max_concurrency=16, timeout_ms=30000),
    ]
    server = Sluice(tmp_path_factory.mktemp("gateway"), models).start()
    yield server
    server.stop()


DIRECT_KEY = "sk-direct"


@pytest.fixture(scope="session")
def direct_servers(tmp_path_factory):
    servers = {name: Llama(tmp_path_factory.mktemp("direct"), name, api_key=DIRECT_KEY) for name in ("tiny", "slow")}
    yield servers
    for server in servers.values():
        server.stop()


def _endpoint(request, name):
    if request.config.getoption("direct"):
        server = request.getfixturevalue("direct_servers")[name]
        return Endpoint(server.url, DIRECT_KEY, "tiny", server)
    server = request.getfixturevalue("gateway")
    return Endpoint(server.url, server.key, f"{name}-chat", request.getfixturevalue(name))


@pytest.fixture
def endpoint(request):
    """The fast model, through sluice (or without it)."""
    return _endpoint(request, "tiny")


@pytest.fixture
def slow_endpoint(request):
    """The slow model, through sluice (or without it)."""
    return _endpoint(request, "slow")


@pytest.fixture
def client(endpoint):
    with endpoint.client() as client:
        yield client
