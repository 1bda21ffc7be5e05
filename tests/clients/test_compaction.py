"""A compacted topic as clients see it: the latest of each key, in order; and as Apache Kafka's dump tool does."""

import json
import re
import subprocess
import time

import pytest

from harness.broker import KIND
from harness.paths import CORELOG
from harness.records import BASE_TIMESTAMP, Record, text
from harness.tools import Tools
from harness.wait import wait_for_leader, wait_until
from test_dump import COMPLAINTS

pytestmark = [pytest.mark.timeout(120), pytest.mark.skipif(KIND != "corelog", reason="it reads our data directory")]

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
KEYS, GONE = 40, range(30, 40)
SETTINGS = {"log.cleaner.backoff.ms": "200", "log.flush.offset.checkpoint.interval.ms": "500"}
TOPIC = {"cleanup.policy": "compact", "segment.bytes": "40000", "min.cleanable.dirty.ratio": "0.01",
         "delete.retention.ms": "1500", "file.delete.delay.ms": "100", "index.interval.bytes": "1000"}


def test_compacted_topic(own_broker, connect):
    broker = own_broker(SETTINGS, shards=1)
    java, librdkafka = connect("java39", broker), connect("confluent", broker)
    java.create_topic("compacted", 1, TOPIC)
    wait_for_leader(broker, "compacted")
    sent = []
    for round in range(4):
        for codec in CODECS:
            send(java, sent, codec, [n for n in range(KEYS)] * 3)
    # Tombstones, and behind them more than a segment: the active one is never compacted.
    send(java, sent, "zstd", list(GONE), values=False)
    send(java, sent, "none", [n for n in range(KEYS) if n not in GONE] * 20)
    wait_until(lambda: cleaned(broker) > sent_last(sent, GONE), "the tombstones were not reached", 30)

    assert broker.terminate() == 0
    broker.start()
    wait_for_leader(broker, "compacted")
    until_settled(broker)
    for client in (java, librdkafka):
        got = client.consume("compacted", 0, len(there(broker)), offset=0)
        assert_latest(got, sent)
        tombstones = {record.key for record in got if record.value is None}
        assert tombstones == {b"key %d" % n for n in GONE}, "they are kept for delete.retention.ms"
        assert len(got) < len(sent) / 4

    time.sleep(1.5)
    # Only a pass over something new meets them again, and the active segment is never touched.
    send(java, sent, "none", [n for n in range(KEYS) if n not in GONE] * 40)
    gone = [b"key %d" % n for n in GONE]
    wait_until(lambda: not any(key.encode() in gone for _, key in there(broker)), "tombstones stay for ever", 30)
    until_settled(broker)
    for client in (java, librdkafka):
        assert_latest(client.consume("compacted", 0, len(there(broker)), offset=0), sent)

    broker.kill()  # no checkpoint is newer than what a pass left
    broker.start()
    wait_for_leader(broker, "compacted")
    until_settled(broker)
    assert_latest(java.consume("compacted", 0, len(there(broker)), offset=0), sent)
    assert broker.terminate() == 0
    dumps_well(broker)


def send(client, sent, codec, keys, values=True):
    records = [Record(text(60, seed=len(sent) + i) if values else None, b"key %d" % key, [("h", b"%d" % i)],
                      BASE_TIMESTAMP + 10 * (len(sent) + i)) for i, key in enumerate(keys)]
    client.produce("compacted", 0, records, codec, 4000)
    sent += records


def sent_last(sent, keys):
    """The offset behind the last tombstone."""
    names = {b"key %d" % key for key in keys}
    return max(offset for offset, record in enumerate(sent) if record.key in names) + 1


def cleaned(broker):
    """Up to where the log was compacted, by the checkpoint."""
    checkpoint = broker.data / "cleaner-offset-checkpoint"
    found = re.search(r"^compacted 0 (\d+)$", checkpoint.read_text(), re.M) if checkpoint.exists() else None
    return int(found[1]) if found else -1


def until_settled(broker):
    """Until nothing is left to compact: before that, records go away between counting and consuming them."""
    [directory] = broker.partition_dirs("compacted", 0)
    active = max(int(path.stem) for path in directory.glob("*.log"))
    wait_until(lambda: cleaned(broker) == active, "compaction does not reach the active segment", 30)


def there(broker):
    """Offsets and keys of all records, by the node's own command."""
    done = subprocess.run([CORELOG, "consume", "-b", broker.bootstrap, "compacted", "-e", "-f", "%o %k\\n"],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return [tuple(line.split(" ", 1)) for line in done.stdout.splitlines()]


def assert_latest(got, sent):
    offsets = [record.offset for record in got]
    assert offsets == sorted(set(offsets)), "order"
    for record in got:
        was = sent[record.offset]
        assert (record.key, record.value, record.timestamp, record.headers) == (was.key, was.value, was.timestamp, was.headers)
    latest = {record.key: offset for offset, record in enumerate(sent)}
    for key, offset in latest.items():
        if sent[offset].value is not None:
            assert offset in offsets, f"the latest record of {key} is lost"
        else:
            assert not any(record.key == key and record.value is not None for record in got), f"{key} was deleted"


def dumps_well(broker):
    [directory] = broker.partition_dirs("compacted", 0)
    names = {path.name for path in directory.iterdir()}
    assert not [name for name in names if name.endswith((".swap", ".cleaned"))], names
    segments = sorted(directory.glob("*.log"))
    tools = Tools("39", broker)
    for files, options in ((segments, ["--print-data-log"]), ([s.with_suffix(".index") for s in segments], ["--index-sanity-check"]),
                           ([s.with_suffix(".timeindex") for s in segments], []), (sorted(directory.glob("*.snapshot")), [])):
        output = tools.run("dump-log", "--files", ",".join(map(str, files)), *options)
        # Offsets have gaps now, and the tool says so of a log that has them.
        for complaint in [complaint for complaint in COMPLAINTS if "secutive" not in complaint]:
            assert complaint not in output, f"{complaint}:\n{output[-3000:]}"
    verified = subprocess.run([CORELOG, "verify", "--json", broker.data], capture_output=True, text=True, timeout=60)
    lines = [json.loads(line) for line in verified.stdout.splitlines()]
    assert verified.returncode == 0 and {line.get("check", "leftover") for line in lines} <= {"leftover"}, lines
