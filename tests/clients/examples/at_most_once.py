"""Group consumption ("high-level"), at most once: commit, then process.

    at_most_once.py BOOTSTRAP TOPIC GROUP MEMBER

No record is ever processed twice: before anything is done with it, the group has noted that it was read. Whoever dies has lost what it had read
and not yet processed, at most one batch.
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
        if records:
            # If this fails, the records are another member's: they must not be processed here.
            consumer.commit(asynchronous=False)
        for record in records:
            process(record)


if __name__ == "__main__":
    main(*sys.argv[1:])
