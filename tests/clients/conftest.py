"""Brokers and clients for the suites, and the record of which client passed what."""

import itertools
import os

import pytest

import adapters
from harness import results
from harness.broker import KIND, Broker
from harness.paths import CACHE

LOGS = CACHE / "logs"
_numbers = itertools.count()
_versions = {}


def pytest_report_header():
    return f"broker under test: {KIND}"


@pytest.fixture(scope="session")
def broker():
    """One broker with its settings at their defaults, for every test that can share it."""
    broker = Broker().start()
    yield broker
    alive = broker.alive()
    tail = broker.log_tail()
    broker.close()
    assert alive, f"the broker died during the run:\n{tail}"


@pytest.fixture
def own_broker():
    """A factory of brokers for tests that need their own settings or that kill it."""
    started = []

    def start(config=None, **options):
        started.append(Broker(config, **options))
        return started[-1].start()

    yield start
    for one in started:
        one.close()


@pytest.fixture
def connect():
    """A factory of adapters for brokers of a test's own."""
    opened = []

    def open_client(key, broker):
        opened.append(_open(key, broker))
        return opened[-1]

    yield open_client
    for one in opened:
        one.close()


@pytest.fixture(scope="session")
def _shared_clients(broker):
    opened = {}
    yield opened
    for one in opened.values():
        one.close()


@pytest.fixture
def client_of(_shared_clients, broker):
    """Adapters on the shared broker, each opened once."""

    def get(key):
        if key not in _shared_clients:
            _shared_clients[key] = _open(key, broker)
        return _shared_clients[key]

    return get


@pytest.fixture
def topic():
    """A topic name that no other test uses."""
    return f"t{os.getpid()}-{next(_numbers)}"


def _open(key, broker):
    kind = adapters.ALL[key]
    if issubclass(kind, adapters.ProcessClient):
        LOGS.mkdir(parents=True, exist_ok=True)
        client = kind(broker.bootstrap, str(LOGS / f"adapter-{key}.log"))
    else:
        client = kind(broker.bootstrap)
    if key not in _versions:
        _versions[key] = (client.name, client.version())
    return client


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Hands the client and its version to whoever writes the table: this process, or the one that runs the workers."""
    outcome = yield
    report = outcome.get_result()
    key = item.callspec.params.get("client") if hasattr(item, "callspec") else None
    if key and (report.when == "call" or report.failed):
        name, version = _versions.get(key, (key, "?"))
        report.user_properties.append(("client", [key, name, version]))


def pytest_runtest_logreport(report):
    for name, value in report.user_properties:
        if name == "client" and not report.skipped:
            results.note(*value, report.nodeid, report.passed)


def pytest_sessionfinish(session):
    if not hasattr(session.config, "workerinput"):
        results.save()
