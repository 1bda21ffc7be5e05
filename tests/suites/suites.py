"""Runs kafka-python's and librdkafka's own tests against a broker of ours and holds the outcome against expected.toml.

Started by `run`, which installs what this needs. One test after the other, each with a bound in time, on a broker that is started
here, on free ports, in a temporary directory.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
HOME = ROOT / "tests" / ".cache" / "suites"
LOGS = HOME / "logs"
EXPECTED = HERE / "expected.toml"

KAFKA_VERSION = "3.9.0"
# The longest test of librdkafka takes three minutes on a machine of two cores.
TEST_TIMEOUT_S = 400
PYTEST_TEST_TIMEOUT_S = 120
PYTEST_TIMEOUT_S = 1200

# What the suites' own server configurations set (kafka-python: servers/resources/default, librdkafka: tests/scenarios).
KAFKA_PYTHON_BROKER = {"num.partitions": "4", "group.min.session.timeout.ms": "1000", "group.initial.rebalance.delay.ms": "0"}
LIBRDKAFKA_BROKER = {"num.partitions": "4"}
NO_AUTOCREATE = {"auto.create.topics.enable": "false"}

# kafka-python's own fixtures start one broker, and these tests need that there is one: see the reasons in README.md.
ONE_BROKER_TESTS = ("test_delete_records",)

# librdkafka's tests by number; a number stands for every test program that begins with it.
GROUPS = "0018-0020 0033 0045 0050-0051 0056 0069 0089 0091 0099 0118 0122 0130 0132 0140"
LIBRDKAFKA = {
    "groups": GROUPS,
    "core": "0001-0016 0021-0022 0029 0031 0034-0042 0048 0053 0057 0060 0063-0070 0073 0082-0088 0092-0093 0112 0114 0123 0125 0127",
    "timestamps": "0052 0054 0059",
    "compression": "0017 0110",
    "idempotence": "0090 0094",
    "more": "0026-0028 0030 0044 0049 0061 0075-0077 0081 0102 0107 0109 0111 0113 0137 0139 0150 0153",
    # The group tests once more, by members of the new protocol (KIP-848).
    "consumer-groups": f"{GROUPS} 0102 0113",
}
# Tests that librdkafka runs on brokers that create no topics by themselves.
NO_AUTOCREATE_NUMBERS = {"0045", "0107", "0111"}
# Tests of message formats that Kafka 4.0 dropped, and Corelog does not have: once more, told that the broker is 4.0.
AS_KAFKA_4 = {"0052"}
# How a reason begins in expected.toml where a test passes at times.
SOMETIMES = "sometimes: "

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# A line of the summary that librdkafka's test program prints: "| 0045_subscribe_update   |   PASSED |   9.020s | why".
_ROW = re.compile(r"^\|\s+(\w+)\s+\|\s+(PASSED|FAILED|SKIPPED|RUNNING)\s+\|\s+([0-9.]+)s\s*\|\s?(.*)$")
# What the test program says at the moment of the failure, also where it ends without a summary.
_FAILURE = re.compile(r'^### Test "([^"]+)" failed at (\S+)[^\n]*\n([^\n]*)', re.MULTILINE)


@dataclass
class Result:
    part: str
    name: str
    state: str  # passed, failed, skipped
    seconds: float
    why: str = ""


def main() -> int:
    arguments = parse()
    if arguments.list:
        print("\n".join(["kafka-python", *LIBRDKAFKA]))
        return 0
    os.environ["BROKER"] = arguments.broker
    if arguments.corelog:
        os.environ["CORELOG"] = str(Path(arguments.corelog).resolve())
    expected = tomllib.loads(EXPECTED.read_text())
    parts = arguments.parts or ["kafka-python", *LIBRDKAFKA]
    results: list[Result] = []
    for part in parts:
        runner = run_kafka_python if part == "kafka-python" else run_librdkafka
        for result in runner(part, arguments.only):
            results.append(result)
            print_row(result, expected)
    return conclude(results, expected, whole=not arguments.only, parts=parts)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests/suites/run", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"kafka-python {' '.join(LIBRDKAFKA)}; default: all")
    parser.add_argument("--only", action="append", default=[], metavar="TEXT", help="only tests with this in their names")
    parser.add_argument("--corelog", metavar="PATH", help="the binary under test")
    parser.add_argument("--broker", choices=["corelog", "kafka39"], default=os.environ.get("BROKER", "corelog"))
    parser.add_argument("--list", action="store_true", help="name the parts")
    arguments = parser.parse_args()
    for part in arguments.parts:
        if part != "kafka-python" and part not in LIBRDKAFKA:
            parser.error(f"no part is called '{part}'; there are: kafka-python {' '.join(LIBRDKAFKA)}")
    return arguments


# ---- kafka-python


def run_kafka_python(part: str, only: list[str]):
    """Two runs of pytest: all tests against two shards, which clients see as two brokers, and those for one broker against one."""
    one = " or ".join(f"({name} and not {name}_)" for name in ONE_BROKER_TESTS)
    chosen = f"({' or '.join(only)})" if only else ""
    for shards, condition in ((2, f"not ({one})"), (1, one)):
        yield from pytest_run(part, shards, f"{chosen} and ({condition})" if chosen else condition)


def pytest_run(part: str, shards: int, condition: str) -> list[Result]:
    log = log_of(part, f"pytest-{shards}")
    report = log.with_suffix(".xml")
    report.unlink(missing_ok=True)
    home = HOME / "kafka-python"
    with started(KAFKA_PYTHON_BROKER, shards) as broker:
        environment = os.environ | {"KAFKA_URI": f"kafka://{broker.bootstrap}", "KAFKA_VERSION": KAFKA_VERSION}
        command = [str(HOME / "venv" / "bin" / "python"), "-m", "pytest", "test/integration", "-k", condition, "-p", "no:cacheprovider",
                   "-o", f"addopts=--timeout={PYTEST_TEST_TIMEOUT_S} --timeout-method=signal", "-o", "log_level=INFO", "--tb=short",
                   f"--junitxml={report}"]
        finished = run_bounded(command, home, environment, log, PYTEST_TIMEOUT_S)
    if not report.exists():
        return [Result(part, f"pytest-{shards}", "failed", 0, f"{finished} without a report, see {log}")]
    return [kafka_python_result(part, case) for case in ElementTree.parse(report).iter("testcase")]


def kafka_python_result(part: str, case: ElementTree.Element) -> Result:
    module = case.get("classname", "").removeprefix("test.integration.")
    name = f"{module}::{case.get('name')}"
    for kind, state in (("failure", "failed"), ("error", "failed"), ("skipped", "skipped")):
        found = case.find(kind)
        if found is not None:
            why = (found.get("message") or "").strip().splitlines()
            return Result(part, name, state, float(case.get("time", 0)), why[0] if why else "")
    return Result(part, name, "passed", float(case.get("time", 0)))


# ---- librdkafka


def run_librdkafka(part: str, only: list[str]):
    numbers = [number for number in numbers_of(LIBRDKAFKA[part]) if not only or any(number in text or text in number for text in only)]
    for scenario, config, chosen in (
        ("default", {}, numbers),
        ("noautocreate", NO_AUTOCREATE, [number for number in numbers if number in NO_AUTOCREATE_NUMBERS]),
    ):
        if not chosen:
            continue
        with started(LIBRDKAFKA_BROKER | config, 2) as broker:
            for number in chosen:
                yield from librdkafka_test(part, number, scenario, broker)
                if number in AS_KAFKA_4:
                    for result in librdkafka_test(part, number, scenario, broker, "4.0.0"):
                        result.name += " (4.0)"
                        yield result


def numbers_of(text: str) -> list[str]:
    """ "0018-0020 0033" as the numbers of tests that there are, in order."""
    there = sorted({path.name[:4] for path in (HOME / "librdkafka" / "tests").glob("[0-9][0-9][0-9][0-9]-*.c*")})
    numbers = []
    for piece in text.split():
        first, _, last = piece.partition("-")
        numbers += [number for number in there if first <= number <= (last or first)]
    return numbers


def librdkafka_test(part: str, number: str, scenario: str, broker, version: str = KAFKA_VERSION) -> list[Result]:
    """One process for one number. The outcome is what the test program's own summary says of each test; a test that it only left out
    because no broker is needed for it (-L) is none of ours."""
    name = f"{number}-{scenario}-{version}"
    log = log_of(part, name)
    home = broker.dir / name
    home.mkdir()
    (home / "test.conf").write_text(f"bootstrap.servers={broker.bootstrap}\ntest.topic.random=true\n")
    built = HOME / "librdkafka"
    # One test reads a file beside its sources by a path from where it is started.
    if not (broker.dir / "src").exists():
        (broker.dir / "src").symlink_to(built / "src")
    environment = os.environ | {
        "TESTS": number,
        "TEST_KAFKA_VERSION": version,
        "TEST_CONSUMER_GROUP_PROTOCOL": "consumer" if part == "consumer-groups" else "classic",
        "LD_LIBRARY_PATH": f"{built}/src:{built}/src-cpp",
        # For bin/kafka-topics.sh, which a few tests call.
        "KAFKA_PATH": str(HERE / "kafka"),
        "BROKERS": broker.bootstrap,
    }
    began = time.monotonic()
    # Line by line, or an abort at the end (threads that a failed test leaves behind) takes the summary with it.
    command = ["stdbuf", "-oL", str(built / "tests" / "test-runner"), "-L", "-p1", "-s", scenario]
    finished = run_bounded(command, home, environment, log, TEST_TIMEOUT_S)
    text = _COLOUR.sub("", log.read_text(errors="replace"))
    results = [row for line in text.splitlines() if (row := librdkafka_row(part, line)) is not None]
    said = _FAILURE.search(text)
    why = f"{said[1]}: {said[3]} ({said[2]})" if said else finished
    for result in results:
        if result.state == "failed" and not result.why:
            result.why = why
    # A test that hangs or aborts takes the summary with it; and one that passed may leave threads behind, for which the program fails.
    # A summary that names no test is fine: those of this number need no broker, or belong to another scenario.
    ended_well = finished == "ended with 0" and "SUMMARY" in text
    if not ended_well and not any(result.state == "failed" for result in results):
        name = said[1].split(" ")[0] if said and said[1].startswith(number) else f"{number}_{scenario}"
        results.append(Result(part, name, "failed", time.monotonic() - began, why))
    return results


def librdkafka_row(part: str, line: str) -> Result | None:
    row = _ROW.match(line)
    if row is None:
        return None
    name, state, seconds, why = row.groups()
    # Left out without a reason: a test of another scenario.
    if state == "SKIPPED" and (not why.strip() or "negative test flags" in why):
        return None
    return Result(part, name, {"PASSED": "passed", "SKIPPED": "skipped"}.get(state, "failed"), float(seconds), why.strip())


# ---- brokers and processes


class started:
    """A broker for the time of a with block."""

    def __init__(self, config: dict[str, str], shards: int):
        sys.path.insert(0, str(ROOT / "tests" / "clients"))
        from harness.broker import Broker

        if os.environ["BROKER"] == "kafka39":
            config = {"offsets.topic.num.partitions": "4", **config}
        self.broker = Broker(config, shards=shards)

    def __enter__(self):
        return self.broker.start()

    def __exit__(self, *_):
        alive, tail = self.broker.alive(), self.broker.log_tail()
        shutil.copy(self.broker.log, LOGS / "broker.log")
        self.broker.close()
        if not alive:
            raise SystemExit(f"the broker died during the run:\n{tail}")


def run_bounded(command: list[str], home: Path, environment: dict[str, str], log: Path, seconds: float) -> str:
    """Runs a command with its output in `log`, and says how it ended. After `seconds` its whole process group is killed."""
    with open(log, "wb") as out:
        process = subprocess.Popen(command, cwd=home, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                                   start_new_session=True)
        try:
            return f"ended with {process.wait(seconds)}"
        except subprocess.TimeoutExpired:
            return f"did not end within {seconds} s"
        finally:
            # Nothing of it may go on beside the next test; the group is ours alone, as the process was started as its leader.
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()


def log_of(part: str, name: str) -> Path:
    LOGS.mkdir(parents=True, exist_ok=True)
    return LOGS / f"{part}-{name}.log"


# ---- what was expected


def print_row(result: Result, expected: dict) -> None:
    reason = expected.get(result.part, {}).get(result.name)
    verdict = verdict_of(result, reason)
    mark = {"passed": "ok", "expected": "--", "unexpected": "!!"}[verdict]
    note = result.why
    if verdict == "expected":
        note = reason
    elif verdict == "unexpected" and result.state == "passed":
        note = f"passes, although expected.toml says: {reason}"
    print(f"{mark} {result.part:15} {result.name:58} {result.state:8}{result.seconds:7.1f} s  {note[:200]}".rstrip(), flush=True)


def verdict_of(result: Result, reason: str | None) -> str:
    if result.state == "passed":
        return "unexpected" if reason and not reason.startswith(SOMETIMES) else "passed"
    return "expected" if reason else "unexpected"


def conclude(results: list[Result], expected: dict, whole: bool, parts: list[str]) -> int:
    count = {"passed": 0, "expected": 0, "unexpected": 0}
    for result in results:
        count[verdict_of(result, expected.get(result.part, {}).get(result.name))] += 1
    # A test that is listed and was not there at all: the list is not true any more.
    seen = {(result.part, result.name) for result in results}
    for part in parts if whole else []:
        for name in expected.get(part, {}):
            if (part, name) not in seen:
                print(f"!! {part:15} {name:58} is in expected.toml, but there is no such test")
                count["unexpected"] += 1
    print(f"logs in {LOGS.relative_to(ROOT)}")
    print(f"{count['passed']} passed, {count['expected']} as expected failing, {count['unexpected']} unexpected")
    return 0 if results and count["unexpected"] == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
