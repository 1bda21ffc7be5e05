"""A topic of 10,000 partitions within ordinary limits of open files."""

import os
import time
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from harness import raw
from harness.broker import KIND
from harness.records import Record
from harness.tools import Tools
from harness.wait import wait_for_leader, wait_until

PARTITIONS = 10_000
# Soft and hard limit of a broker that was started by hand on an old distribution. Apache Kafka keeps every segment
# open and is documented to want 100,000.
NOFILE = (1024, 4096) if KIND == "corelog" else (20_000, 20_000)
SECONDS = 60 if KIND == "corelog" else 300

pytestmark = pytest.mark.timeout(5 * SECONDS)


def test_ten_thousand_partitions(own_broker, connect):
    broker = own_broker({"log.segment.delete.delay.ms": "1000"}, nofile=NOFILE)
    admin = connect("confluent", broker)
    admin.create_topic("wide", PARTITIONS, {}, SECONDS)
    wait_for_leader(broker, "wide", PARTITIONS, SECONDS)

    described = Tools("39", broker).run("topics", "--describe", "--topic", "wide")
    assert f"PartitionCount: {PARTITIONS}" in described and described.count("Leader: ") == PARTITIONS
    leaders = raw.metadata(broker.port, ["wide"])[1]["wide"].leaders
    if KIND == "corelog":
        counts = [list(leaders.values()).count(node) for node in set(leaders.values())]
        assert len(counts) == broker.shards and max(counts) - min(counts) <= PARTITIONS // 10, f"spread over shards: {counts}"

    produce_to_each(broker)
    assert len(os.listdir(f"/proc/{broker.pid}/fd")) <= NOFILE[1]
    everything = {partition: b"value %d" % partition for partition in range(PARTITIONS)}
    assert consume_from_each(broker) == everything

    # What is read after a start was never in this process's memory: indexes and files are opened for each partition.
    for end in broker.kill, broker.terminate:
        end()
        broker.start()
        wait_for_leader(broker, "wide", PARTITIONS, SECONDS)
        assert consume_from_each(broker) == everything

    admin.delete_topic("wide", SECONDS)
    wait_until(lambda: not raw.exists(broker.port, "wide"), "the topic is still listed", SECONDS)
    wait_until(lambda: not broker.topic_dirs("wide"), lambda: f"{len(broker.topic_dirs('wide'))} directories left", SECONDS)
    admin.create_topic("narrow", 1, {})
    wait_for_leader(broker, "narrow", 1, SECONDS)
    assert admin.produce("narrow", 0, [Record(b"still here")], "none", 1_000_000) == [0]
    assert "Too many open files" not in Path(broker.log).read_text(errors="replace")


def produce_to_each(broker):
    delivered, errors = [], []

    def on_delivery(error, message):
        (errors if error else delivered).append(error or message.partition())

    producer = Producer({"bootstrap.servers": broker.bootstrap, "acks": "all", "linger.ms": 100,
                         "message.timeout.ms": SECONDS * 1000})
    for partition in range(PARTITIONS):
        producer.produce("wide", b"value %d" % partition, b"key", partition, on_delivery)
    left = producer.flush(SECONDS)
    assert left == 0 and not errors, f"{left} left, {len(errors)} errors, first {errors[:3]}"
    assert sorted(delivered) == list(range(PARTITIONS))


def consume_from_each(broker):
    consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": "unused", "enable.auto.commit": False,
                         "auto.offset.reset": "error"})
    consumer.assign([TopicPartition("wide", partition, 0) for partition in range(PARTITIONS)])
    found, deadline = {}, time.monotonic() + SECONDS
    while len(found) < PARTITIONS:
        for message in consumer.consume(1000, 0.5):
            assert message.error() is None, message.error()
            found[message.partition()] = message.value()
        assert time.monotonic() < deadline, f"read {len(found)} of {PARTITIONS} partitions within {SECONDS} s"
    consumer.close()
    return found
