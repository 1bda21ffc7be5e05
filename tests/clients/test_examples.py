"""The examples do what they say, also when they are killed."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness.paths import CLIENTS
from harness.records import Record
from harness.wait import wait_for_leader

pytestmark = pytest.mark.timeout(120)
PARTITIONS = 2
EACH = 30
BATCH = 10


def start(name, *arguments):
    return subprocess.Popen([sys.executable, str(CLIENTS / "examples" / f"{name}.py"), *arguments], stdout=subprocess.PIPE, text=True)


@pytest.fixture
def filled(broker, client_of, topic):
    client = client_of("confluent")
    client.create_topic(topic, PARTITIONS, {})
    wait_for_leader(broker, topic, PARTITIONS)
    for partition in range(PARTITIONS):
        client.produce(topic, partition, [Record(b"%d-%d" % (partition, n)) for n in range(EACH)], "none", 1_000_000)
    return topic


def read(process, count):
    """The next lines that it prints: partition and offset."""
    lines = []
    while len(lines) < count and (line := process.stdout.readline()):
        lines.append(tuple(map(int, line.split()[:2])))
    return lines


def killed_and_started_again(name, broker, topic, expected):
    """Kills it in the middle, starts it anew, and reads until nothing new can come; what both processed."""
    arguments = (broker.bootstrap, topic, f"{name}-of-{topic}", "member-1")
    first = start(name, *arguments)
    before = read(first, BATCH + 5)
    first.kill()
    before += read(first, 10**6)
    second = start(name, *arguments)
    after = read(second, expected(before))
    second.kill()
    second.wait()
    return before, after


def test_processing_at_least_and_at_most_once(broker, filled):
    everything = {(partition, offset) for partition in range(PARTITIONS) for offset in range(EACH)}

    def at_least_once():
        # The first batch was committed; all that follows is processed again.
        return killed_and_started_again("at_least_once", broker, filled, lambda before: len(everything) - committed(before))

    def at_most_once():
        # What was committed with the batch that it died in is lost.
        return killed_and_started_again("at_most_once", broker, filled, lambda before: len(everything) - committed(before) - BATCH)

    def committed(before):
        return len(before) // BATCH * BATCH

    with ThreadPoolExecutor() as pool:
        least, most = pool.submit(at_least_once), pool.submit(at_most_once)
        before, after = least.result()
        assert set(before) | set(after) == everything, "nothing is lost"
        again = set(before) & set(after)
        assert 0 < len(again) <= BATCH, "what was processed after the last commit is processed again, and no more"
        before, after = most.result()
        assert not set(before) & set(after) and len(before + after) == len(set(before + after)), "nothing is processed twice"
        assert 0 < len(everything - set(before) - set(after)) <= BATCH, "what it had read and not processed is lost, and no more"


def test_low_level_consumption_keeps_its_own_place(broker, client_of, filled, tmp_path):
    place = tmp_path / "place"

    def run():
        assert start("low_level", broker.bootstrap, filled, "1", str(place)).wait(30) == 0
        return json.loads(place.read_text())

    state = run()
    assert state == {"next": EACH, "bytes": sum(len(b"1-%d" % n) for n in range(EACH))}
    assert run() == state, "nothing is new"
    client_of("confluent").produce(filled, 1, [Record(b"more")], "none", 1_000_000)
    assert run() == {"next": EACH + 1, "bytes": state["bytes"] + 4}, "it goes on where it was"
    place.write_text(json.dumps({"next": 5, "bytes": 0}))
    assert run()["next"] == EACH + 1, "and anywhere else that it chooses"


def test_one_group_is_a_queue_and_several_are_a_broadcast(broker, filled):
    groups = [f"queue-{filled}", f"queue-{filled}", f"one-{filled}", f"other-{filled}"]
    printed, _ = start("queue_and_broadcast", broker.bootstrap, filled, *groups).communicate(timeout=60)
    seen = [tuple(line.split()) for line in printed.splitlines()]
    everything = sorted((partition, offset) for partition in range(PARTITIONS) for offset in range(EACH))
    for group in set(groups):
        assert sorted((int(p), int(o)) for g, _, p, o in seen if g == group) == everything, f"{group}: each record once"
    assert {number for group, number, _, _ in seen if group == groups[0]} == {"0", "1"}, "both share the queue"
    again = start("queue_and_broadcast", broker.bootstrap, filled, *groups)
    assert again.communicate(timeout=20)[0] == "" and again.returncode == 0, "nothing is new"


def test_what_does_not_exist_is_told(broker, filled, tmp_path):
    def said(name, *arguments):
        command = [sys.executable, str(CLIENTS / "examples" / f"{name}.py"), broker.bootstrap, *arguments]
        done = subprocess.run(command, capture_output=True, timeout=20, text=True)
        assert done.returncode == 1 and not done.stdout
        return done.stderr

    place = str(tmp_path / "place")
    assert "UNKNOWN_TOPIC_OR_PART" in said("low_level", f"no-{filled}", "2", place)
    assert f"{filled} has no partition 99" in said("low_level", filled, "99", place)
    assert "UNKNOWN_TOPIC_OR_PART" in said("queue_and_broadcast", f"no-{filled}", "g")
    waiting = subprocess.Popen([sys.executable, str(CLIENTS / "examples" / "at_least_once.py"), broker.bootstrap, f"no-{filled}", f"g-{filled}", "m"],
                               stderr=subprocess.PIPE, text=True)
    try:
        assert "UNKNOWN_TOPIC_OR_PART" in waiting.stderr.readline()
    finally:
        waiting.kill()
        waiting.wait()
