"""The main job on real input: every event goes in keyed by user and comes back, byte for byte and in order."""

import os
import subprocess
import time
from bisect import bisect_left

import pytest

from harness import activity, raw
from harness.broker import KIND
from harness.paths import CORELOG
from harness.records import Record
from harness.wait import wait_for_leader, wait_until

pytestmark = pytest.mark.timeout(240)

# How soon retention is looked at. Apache Kafka waits 30 s before its first look, whatever this says.
RETENTION_CHECK_MS = 1000


@pytest.fixture(scope="module")
def events():
    return activity.load()


@pytest.fixture(scope="module")
def keyed(events, tmp_path_factory):
    path = tmp_path_factory.mktemp("activity") / "keyed.tsv"
    activity.write_keyed(events, path)
    return str(path)


def test_through_kcat(events, keyed, own_broker, connect):
    """kcat in, kcat out, again after kill -9 and a restart. Its records carry the time of sending."""
    broker = own_broker()
    admin, kcat = connect("confluent", broker), connect("kcat", broker)
    create(admin, broker, "activity", {})
    started_ms = int(time.time() * 1000)
    assert kcat.produce_file("activity", keyed, "zstd") == len(events)

    before = read_all(broker, kcat, "activity")
    activity.assert_complete(events, before, timestamps=False)
    now_ms = int(time.time() * 1000)
    assert all(started_ms - 1000 <= record.timestamp <= now_ms for read in before.values() for record in read)

    kill_and_restart(broker)
    after = read_all(broker, kcat, "activity")
    assert after == before, "kill -9 changed what was acknowledged"


@pytest.mark.parametrize("client,codec", [("java41", "lz4"), ("aiokafka", "none")])
def test_with_the_events_own_time(client, codec, events, keyed, own_broker, connect):
    """A client that sets each record's timestamp: from the middle by time, after kill -9 and restart as before."""
    broker = own_broker({"log.retention.check.interval.ms": str(RETENTION_CHECK_MS)})
    me, kcat = connect(client, broker), connect("kcat", broker)
    create(me, broker, "activity", {"retention.ms": "-1"})
    assert me.produce_file("activity", keyed, codec) == len(events)

    before = read_all(broker, me, "activity")
    activity.assert_complete(events, before, timestamps=True)
    assert read_all(broker, kcat, "activity") == before
    read_from_the_middle(events, me, kcat, before)

    let_retention_pass(me, kcat, broker)  # retention.ms=-1 keeps events of 2011
    kill_and_restart(broker)
    me = connect(client, broker)
    assert read_all(broker, me, "activity") == before, "kill -9 changed what was acknowledged"
    read_from_the_middle(events, me, kcat, before)
    assert me.produce_file("activity", keyed, codec) == len(events), "the log goes on after the restart"
    assert sum(end_offsets(broker, kcat, "activity")) == 2 * len(events)


def test_default_retention_deletes_old_events(events, keyed, own_broker, connect):
    """Events of 2011 to 2024 are older than log.retention.hours=168: they go, a record of today stays."""
    broker = own_broker({"log.retention.check.interval.ms": str(RETENTION_CHECK_MS), "log.segment.delete.delay.ms": "1000"})
    me, kcat = connect("java39", broker), connect("kcat", broker)
    create(me, broker, "activity", {})
    assert me.produce_file("activity", keyed, "none") == len(events)
    ends = end_offsets(broker, kcat, "activity")

    def all_gone():
        return [kcat.start_offset("activity", partition) for partition in range(activity.PARTITIONS)] == ends

    wait_until(all_gone, "retention left events of 2011-2024", seconds=60)
    assert end_offsets(broker, kcat, "activity") == ends, "deleting moves the start, never the end"
    wait_until(lambda: logged_bytes(broker) == 0, lambda: f"{logged_bytes(broker)} bytes of deleted events on disk", 30)

    fresh = [Record(b"of today")]
    assert me.produce("activity", 0, fresh, "none", 1_000_000) == [ends[0]]
    let_retention_pass(me, kcat, broker)
    assert me.consume("activity", 0, 1, offset=ends[0])[0].value == b"of today"


def test_corelog_produce_places_keys_as_java(events, keyed, own_broker, connect, tmp_path):
    """`corelog produce` and the Java producer put every user into the same partition, by murmur2."""
    if not CORELOG.exists():
        assert KIND != "corelog", f"{CORELOG} is not built"
        pytest.skip("Corelog is not built")
    broker = own_broker()
    java = connect("java39", broker)
    create(java, broker, "java", {"retention.ms": "-1"})
    create(java, broker, "corelog", {"retention.ms": "-1"})
    assert java.produce_file("java", keyed, "none") == len(events)

    lines = b"".join(event.user.encode() + b"\t" + event.line + b"\n" for event in events)
    done = subprocess.run([CORELOG, "produce", "corelog", "-b", broker.bootstrap, "-K", "\t"], input=lines,
                          capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    by_corelog = read_all(broker, java, "corelog")
    activity.assert_complete(events, by_corelog, timestamps=False)
    assert activity.placement(by_corelog) == activity.placement(read_all(broker, java, "java"))


def create(client, broker, topic, config):
    client.create_topic(topic, activity.PARTITIONS, config)
    wait_for_leader(broker, topic, activity.PARTITIONS)


def let_retention_pass(client, kcat, broker):
    """Until retention has gone through every partition of the broker: records of 1970 in another topic are gone, and
    after them others; in between lies a whole pass."""
    for topic in ["expired", "expired-again"]:
        create(client, broker, topic, {})
        for partition in range(activity.PARTITIONS):
            client.produce(topic, partition, [Record(b"of 1970", timestamp=1_000_000)], "none", 1_000_000)

        def all_gone():
            return all(kcat.start_offset(topic, partition) == 1 for partition in range(activity.PARTITIONS))

        wait_until(all_gone, "retention left records of 1970", seconds=60)


def kill_and_restart(broker):
    broker.kill()
    broker.start()
    wait_for_leader(broker, "activity", activity.PARTITIONS)


def end_offsets(broker, kcat, topic):
    return [kcat.end_offset(topic, partition) for partition in range(activity.PARTITIONS)]


def read_all(broker, client, topic):
    """Every partition from its start to its end; that there is nothing more, the end offset tells."""
    counts = {}
    for partition in range(activity.PARTITIONS):
        batches = raw.batches(broker.port, topic, partition)
        counts[partition] = sum(batch.count for batch in batches)
    return {partition: client.consume(topic, partition, count, offset=0) for partition, count in counts.items()}


def read_from_the_middle(events, client, kcat, partitions):
    """From the time of the event in the middle: each partition from its first record that is not older."""
    middle = events[len(events) // 2].timestamp
    for partition, read in partitions.items():
        times = [record.timestamp for record in read]
        assert times == sorted(times), "events were sent in the order of their time"
        first = bisect_left(times, middle)
        for reader in (client, kcat):
            assert reader.consume("activity", partition, len(read) - first, timestamp=middle) == read[first:]


def logged_bytes(broker):
    total = 0
    for directory in broker.topic_dirs("activity"):
        for entry in os.scandir(directory):
            if ".log" in entry.name:
                try:
                    total += entry.stat().st_size
                except FileNotFoundError:  # deleted just now
                    pass
    return total
