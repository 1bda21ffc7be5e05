"""Members of consumer groups in one process, so that it can be killed and stopped: at-least-once processing.

    member.py CLIENT BOOTSTRAP TOPIC GROUP:ASSIGNOR...

ASSIGNOR may be `consumer`: then the group is of the new protocol (KIP-848), in which the broker assigns. One consumer for each group. Records are "processed" (told on standard output) some at a time, and only then committed. Where a commit
is refused and the partition stays (a cooperative group goes on reading while others join), the position is committed again. What is told
is a JSON line: ms of the wall clock, group, what ("processed", "committed", "refused"), partition, first offset, next offset, and of what was
processed the SHA-1 of its values. Ends by itself, leaving the groups, when standard input is closed. `../java/GroupMember.java`
and `../js/member.js` do the same with their clients.
"""

import asyncio
import hashlib
import json
import sys
import threading
import time

SESSION_MS = 6000
HEARTBEAT_MS = 500
BATCH = 250
# How long a batch takes: so that there is something left to do when members change.
WORK_S = 0.1
_told = threading.Lock()


def tell(group, what, partition, first, following, detail=""):
    line = json.dumps([time.time_ns() // 1_000_000, group, what, partition, first, following, detail])
    with _told:
        print(line, flush=True)


def processed(group, messages, value):
    """Tells of records of one partition; gives partition and next offset."""
    first, last = messages[0], messages[-1]
    return _processed(group, at(first)[0], at(first)[1], at(last)[1] + 1, [value(message) for message in messages])


def _processed(group, partition, first, following, values):
    assert following - first == len(values), "a partition's records come without a gap"
    tell(group, "processed", partition, first, following, hashlib.sha1(b"".join(values)).hexdigest())
    return partition, first, following


def at(message):
    """librdkafka has methods where the others have fields."""
    if callable(message.partition):
        return message.partition(), message.offset()
    return message.partition, message.offset


def confluent(bootstrap, topic, group, assignor, stop):
    from confluent_kafka import Consumer, KafkaException, TopicPartition

    config = {"bootstrap.servers": bootstrap, "group.id": group, "client.id": "confluent", "auto.offset.reset": "earliest",
              "enable.auto.commit": False, "reconnect.backoff.max.ms": 500}
    if assignor == "consumer":
        consumer = Consumer(config | {"group.protocol": "consumer"})
        # With callbacks partitions go within consume, and not while records of theirs are being processed: their commit would be taken.
        nothing = lambda _, partitions: None
        consumer.subscribe([topic], on_assign=nothing, on_revoke=nothing, on_lost=nothing)
    else:
        consumer = Consumer(config | {"session.timeout.ms": SESSION_MS, "heartbeat.interval.ms": HEARTBEAT_MS,
                                      "partition.assignment.strategy": assignor})
        consumer.subscribe([topic])
    uncommitted = set()
    while not stop.is_set():
        by_partition = {}
        for message in consumer.consume(BATCH, 0.1):
            if not message.error():
                by_partition.setdefault(message.partition(), []).append(message)
        for messages in by_partition.values():
            partition, first, following = processed(group, messages, lambda message: message.value())
            time.sleep(WORK_S)
            try:
                consumer.commit(offsets=[TopicPartition(topic, partition, following)], asynchronous=False)
                uncommitted.discard(partition)
                tell(group, "committed", partition, first, following)
            except KafkaException as error:
                # Another member has the partition now, or the broker is away: somebody processes the records again.
                uncommitted.add(partition)
                tell(group, "refused", partition, first, following, str(error))
        uncommitted &= {of.partition for of in consumer.assignment()}
        for position in consumer.position([TopicPartition(topic, partition) for partition in uncommitted]):
            try:
                if position.offset >= 0:
                    consumer.commit(offsets=[position], asynchronous=False)
                uncommitted.discard(position.partition)
            except KafkaException:
                pass  # the next time
    consumer.close()


def kafkapython(bootstrap, topic, group, assignor, stop):
    from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition
    from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
    from kafka.coordinator.assignors.range import RangePartitionAssignor
    from kafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
    from kafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
    from kafka.errors import KafkaError

    assignors = {"range": RangePartitionAssignor, "roundrobin": RoundRobinPartitionAssignor, "sticky": StickyPartitionAssignor,
                 "cooperative-sticky": CooperativeStickyAssignor}
    consumer = KafkaConsumer(topic, bootstrap_servers=bootstrap, group_id=group, client_id="kafkapython", auto_offset_reset="earliest",
                             enable_auto_commit=False, session_timeout_ms=SESSION_MS, heartbeat_interval_ms=HEARTBEAT_MS,
                             max_poll_records=BATCH, partition_assignment_strategy=[assignors[assignor]])
    uncommitted = set()
    while not stop.is_set():
        for messages in consumer.poll(timeout_ms=100).values():
            partition, first, following = processed(group, messages, lambda message: message.value)
            time.sleep(WORK_S)
            try:
                consumer.commit({TopicPartition(topic, partition): OffsetAndMetadata(following, "", -1)})
                uncommitted.discard(TopicPartition(topic, partition))
                tell(group, "committed", partition, first, following)
            except KafkaError as error:
                uncommitted.add(TopicPartition(topic, partition))
                tell(group, "refused", partition, first, following, repr(error))
        uncommitted &= consumer.assignment()
        for of in list(uncommitted):
            try:
                consumer.commit({of: OffsetAndMetadata(consumer.position(of), "", -1)})
                uncommitted.discard(of)
            except KafkaError:
                pass  # the next time
    consumer.close()


async def aio(bootstrap, topic, group, assignor, stop):
    from aiokafka import AIOKafkaConsumer, TopicPartition
    from aiokafka.coordinator.assignors.range import RangePartitionAssignor
    from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
    from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
    from aiokafka.errors import KafkaError

    assignors = {"range": RangePartitionAssignor, "roundrobin": RoundRobinPartitionAssignor, "sticky": StickyPartitionAssignor}
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, group_id=group, client_id="aio", auto_offset_reset="earliest",
                                enable_auto_commit=False, session_timeout_ms=SESSION_MS, heartbeat_interval_ms=HEARTBEAT_MS,
                                max_poll_records=BATCH, partition_assignment_strategy=[assignors[assignor]])
    await consumer.start()
    while not stop.is_set():
        for messages in (await consumer.getmany(timeout_ms=100, max_records=BATCH)).values():
            partition, first, following = processed(group, messages, lambda message: message.value)
            await asyncio.sleep(WORK_S)
            try:
                await consumer.commit({TopicPartition(topic, partition): following})
                tell(group, "committed", partition, first, following)
            except KafkaError as error:
                tell(group, "refused", partition, first, following, repr(error))
    await consumer.stop()


def main(client, bootstrap, topic, *memberships):
    stop = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
    memberships = [membership.split(":") for membership in memberships]
    if client == "aio":
        async def all_of_them():
            await asyncio.gather(*(aio(bootstrap, topic, group, assignor, stop) for group, assignor in memberships))

        asyncio.run(all_of_them())
        return
    member = {"confluent": confluent, "kafkapython": kafkapython}[client]
    threads = [threading.Thread(target=member, args=(bootstrap, topic, group, assignor, stop)) for group, assignor in memberships]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main(*sys.argv[1:])
