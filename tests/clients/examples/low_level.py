"""Consumption in which the client alone chooses partition and offset ("low-level"): the broker keeps nothing about it.

    low_level.py BOOTSTRAP TOPIC PARTITION PLACE

PLACE is a file with the next offset. It is written together with the result, so that both are always of the same moment: that makes
exactly one result of each record, whatever dies when. There is no group, and nobody else gets the partition if this process is gone.
"""

import json
import os
import sys

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition


def load(place):
    if os.path.exists(place):
        with open(place) as file:
            return json.load(file)
    return {"next": OFFSET_BEGINNING, "bytes": 0}


def store(place, state):
    with open(place + ".new", "w") as file:
        json.dump(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(place + ".new", place)


def check(consumer, topic, partition):
    """An assignment to what does not exist would wait for it without a word."""
    found = consumer.list_topics(topic, timeout=10).topics[topic]
    if found.error:
        raise SystemExit(f"{topic}: {found.error}")
    if partition not in found.partitions:
        raise SystemExit(f"{topic} has no partition {partition}, only {len(found.partitions)} of them, from 0 on")


def main(bootstrap, topic, partition, place):
    state = load(place)
    consumer = Consumer({
        "bootstrap.servers": bootstrap,
        # librdkafka wants a name; nothing is joined and nothing committed.
        "group.id": "unused",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        # An offset that is not in the log is to be told, not to be guessed.
        "auto.offset.reset": "error",
    })
    check(consumer, topic, int(partition))
    consumer.assign([TopicPartition(topic, int(partition), state["next"])])
    while True:
        record = consumer.poll(1.0)
        if record is None:
            continue
        if record.error():
            if record.error().name() == "_PARTITION_EOF":
                break
            raise SystemExit(str(record.error()))
        state = {"next": record.offset() + 1, "bytes": state["bytes"] + len(record.value())}
        store(place, state)
    consumer.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
