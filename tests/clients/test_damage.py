"""A bit flips in a closed segment beneath a running broker: real consumers are told, and go on behind it when they are."""

import json
import os
import struct
import subprocess
import time

import pytest

from harness.broker import KIND
from harness.paths import CORELOG
from harness.records import Record

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(KIND != "corelog", reason="Apache Kafka does not look for damage"),
]
BATCHES = 30


def flip_in(directory, wanted):
    """Flips a bit in the batch that holds an offset; its first offset and the one behind it."""
    for path in sorted(directory.glob("*.log")):
        data = path.read_bytes()
        at = 0
        while at + 61 <= len(data):
            base, length = struct.unpack_from(">qi", data, at)
            (delta,) = struct.unpack_from(">i", data, at + 23)
            if base <= wanted <= base + delta:
                with open(path, "r+b") as file:
                    file.seek(at + 61 + (length - 49) // 2)
                    file.write(bytes([data[at + 61 + (length - 49) // 2] ^ 8]))
                return base, base + delta + 1
            at += 12 + length
    raise AssertionError(f"no batch holds offset {wanted}")


def scrub(broker, *words):
    done = subprocess.run([CORELOG, "scrub", *words], check=True, capture_output=True, text=True, timeout=60)
    return done.stdout


@pytest.mark.parametrize("client", ["confluent", "java41"])
def test_consumers_are_told_of_damage_and_go_on_behind_it(client, own_broker, connect):
    broker = own_broker({"log.initial.task.delay.ms": "0"})
    tested = connect(client, broker)
    tested.create_topic("t", 1, {"segment.bytes": "100000", "retention.ms": "-1"})
    for number in range(BATCHES):
        records = [Record(os.urandom(1000), f"{number}-{i}".encode(), [], 1_700_000_000_000 + number) for i in range(10)]
        tested.produce("t", 0, records, "none", 1_000_000)
    first, behind = flip_in(broker.partition_dirs("t", 0)[0], 75)
    scrub(broker, "now", "-b", broker.bootstrap)
    until = time.monotonic() + 60
    while not (found := json.loads(scrub(broker, "status", "--json", "--data-dir", str(broker.data)))["damaged"]):
        assert time.monotonic() < until, broker.log_tail()
        time.sleep(0.1)
    assert (found[0]["first_offset"], found[0]["next_offset"]) == (first, behind)

    before = tested.consume("t", 0, first, offset=0)
    assert [record.offset for record in before] == list(range(first))
    with pytest.raises(Exception, match="(?i)corrupt|invalid message|message.*(invalid|crc)|Bad message"):
        tested.consume("t", 0, 1, offset=first)
    after = tested.consume("t", 0, BATCHES * 10 - behind, offset=behind)
    assert [record.offset for record in after] == list(range(behind, BATCHES * 10))
