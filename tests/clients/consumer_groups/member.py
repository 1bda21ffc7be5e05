"""One member of a group of the new protocol (KIP-848) by librdkafka, a process of its own so that it can be killed.

    member.py BOOTSTRAP GROUP TOPIC PROTOCOL [INSTANCE_ID]

TOPIC is a pattern if it begins with ^. PROTOCOL is consumer or classic. Each record is "processed" (told on standard output) and only then
committed; what is told is a JSON line with the time of the machine's monotonic clock. Ends by itself, leaving the group, when
standard input is closed.
"""

import json
import sys
import threading
import time

from confluent_kafka import Consumer, KafkaException

# How long one record takes: so that there is something left to do when members change.
WORK_S = 0.002


def tell(what, partition, offset):
    print(json.dumps([time.monotonic_ns(), what, partition, offset]), flush=True)


def main(bootstrap, group, topic, protocol, instance_id=None):
    stop = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
    config = {"bootstrap.servers": bootstrap, "group.id": group, "group.protocol": protocol, "auto.offset.reset": "earliest",
              "enable.auto.commit": False, "topic.metadata.refresh.interval.ms": 1000}
    if protocol == "classic":
        config |= {"session.timeout.ms": 6000, "heartbeat.interval.ms": 500, "partition.assignment.strategy": "cooperative-sticky"}
    if instance_id:
        config["group.instance.id"] = instance_id
    consumer = Consumer(config)
    # With callbacks partitions go within poll, and not while a record of theirs is being processed: its commit would be taken.
    def note(what):
        return lambda _, partitions: print(time.monotonic_ns(), what, [of.partition for of in partitions], file=sys.stderr, flush=True)

    consumer.subscribe([topic], on_assign=note("assigned"), on_revoke=note("revoked"), on_lost=note("lost"))
    while not stop.is_set():
        message = consumer.poll(0.1)
        if message is None:
            continue
        if message.error():
            print(message.error(), file=sys.stderr, flush=True)
            continue
        time.sleep(WORK_S)
        tell("processed", message.partition(), message.offset())
        try:
            consumer.commit(message, asynchronous=False)
            tell("committed", message.partition(), message.offset() + 1)
        except KafkaException as error:
            # Another member has the partition now, or the broker is away: somebody processes the record again.
            print(time.monotonic_ns(), "refused", message.partition(), message.offset() + 1, error, file=sys.stderr, flush=True)
    consumer.close()


main(*sys.argv[1:])
