"""One group for all is a queue, one group each is a broadcast.

    queue_and_broadcast.py BOOTSTRAP TOPIC GROUP...

Reads the topic with one consumer for each group that is named, to where it ends now. Name one group several times, and each record goes to one of its
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


def ends(bootstrap, topic):
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "unused"})
    partitions = consumer.list_topics(topic).topics[topic].partitions
    total = sum(consumer.get_watermark_offsets(TopicPartition(topic, index))[1] for index in partitions)
    consumer.close()
    return total


def main(bootstrap, topic, *groups):
    seen, stop = [], threading.Event()
    threads = [threading.Thread(target=consume, args=(bootstrap, topic, group, number, seen, stop)) for number, group in enumerate(groups)]
    for thread in threads:
        thread.start()
    wanted = ends(bootstrap, topic) * len(set(groups))
    deadline = time.monotonic() + PATIENCE_S
    while len(seen) < wanted and time.monotonic() < deadline:
        time.sleep(0.05)
    stop.set()
    for thread in threads:
        thread.join()
    for record in seen:
        print(*record)


if __name__ == "__main__":
    main(*sys.argv[1:])
