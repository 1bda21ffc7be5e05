"""One group for all is a queue, one group each is a broadcast.

    queue_and_broadcast.py BOOTSTRAP TOPIC GROUP...

Reads the topic with one consumer for each group that is named, from where its group is to where the topic ends now. Run again with the same groups it
prints what is new; nothing, if nothing is. Name one group several times, and each record goes to one of its
consumers; name several groups, and each of them gets every record.
"""

import sys
import threading
import time

from confluent_kafka import Consumer, TopicPartition

PATIENCE_S = 30


def consume(bootstrap, topic, group, number, seen, stop):
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "client.id": f"consumer-{number}", "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    while not stop.is_set():
        record = consumer.poll(0.1)
        if record is not None and not record.error():
            seen.append((group, number, record.partition(), record.offset()))
    # Commits what was read (enable.auto.commit) and leaves the group.
    consumer.close()


def unread(bootstrap, topic, group):
    """Records behind what the group has committed; all that there are where it has committed nothing."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group})
    found = consumer.list_topics(topic, timeout=10).topics[topic]
    if found.error:
        raise SystemExit(f"{topic}: {found.error}")
    total = 0
    for place in consumer.committed([TopicPartition(topic, index) for index in found.partitions], timeout=10):
        begin, end = consumer.get_watermark_offsets(place)
        total += end - (place.offset if place.offset >= 0 else begin)
    consumer.close()
    return total


def main(bootstrap, topic, *groups):
    wanted = sum(unread(bootstrap, topic, group) for group in set(groups))
    if wanted == 0:
        print("nothing is new", file=sys.stderr)
        return
    seen, stop = [], threading.Event()
    threads = [threading.Thread(target=consume, args=(bootstrap, topic, group, number, seen, stop)) for number, group in enumerate(groups)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + PATIENCE_S
    while len(seen) < wanted and time.monotonic() < deadline:
        time.sleep(0.05)
    stop.set()
    for thread in threads:
        thread.join()
    for record in seen:
        print(*record)
    if len(seen) < wanted:
        raise SystemExit(f"only {len(seen)} of {wanted} records came within {PATIENCE_S} s")


if __name__ == "__main__":
    main(*sys.argv[1:])
