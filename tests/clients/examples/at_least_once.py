"""Group consumption ("high-level"), at least once: process, then commit.

    at_least_once.py BOOTSTRAP TOPIC GROUP MEMBER

The group keeps how far it has read, and its members share the partitions: start this as often as there is work for (a queue). Whoever dies has
processed at most the records since its last commit, and another member processes those again: processing must bear that.
"""

import sys
import time

from confluent_kafka import Consumer

BATCH = 10


def process(record):
    time.sleep(0.02)
    print(record.partition(), record.offset(), record.value().decode(), flush=True)


def main(bootstrap, topic, group, member):
    consumer = Consumer({
        "bootstrap.servers": bootstrap,
        "group.id": group,
        # A static member (KIP-345): started again within its session, it gets its partitions back without a rebalance.
        "group.instance.id": member,
        "session.timeout.ms": 10000,
        # Where to begin when the group has committed nothing.
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
    })
    consumer.subscribe([topic])
    while True:
        records = []
        for record in consumer.consume(BATCH, 0.5):
            if record.error():
                # Such as a topic that does not exist (yet): the client goes on trying.
                print(record.error(), file=sys.stderr, flush=True)
            else:
                records.append(record)
        for record in records:
            process(record)
        if records:
            # What was consumed so far: behind the last record of each partition.
            consumer.commit(asynchronous=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
