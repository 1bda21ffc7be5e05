"""One member of a consumer group, a process of its own so that it can be killed: at-least-once processing.

    member.py CLIENT BOOTSTRAP GROUP TOPIC ASSIGNOR

Each record is "processed" (told on standard output) and only then committed, one by one; what is told is a JSON line with the
time of the machine's monotonic clock. Ends by itself, leaving the group, when standard input is closed.
"""

import asyncio
import json
import sys
import threading
import time

SESSION_MS = 6000
# How long one record takes: so that there is something left to do when members change.
WORK_S = 0.002


def tell(what, partition, offset):
    print(json.dumps([time.monotonic_ns(), what, partition, offset]), flush=True)


def until_closed():
    stop = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
    return stop


def confluent(bootstrap, group, topic, assignor):
    from confluent_kafka import Consumer, KafkaException

    stop = until_closed()
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "auto.offset.reset": "earliest",
                         "enable.auto.commit": False, "session.timeout.ms": SESSION_MS, "heartbeat.interval.ms": 500,
                         "partition.assignment.strategy": assignor})
    consumer.subscribe([topic])
    while not stop.is_set():
        message = consumer.poll(0.1)
        if message is None or message.error():
            continue
        time.sleep(WORK_S)
        tell("processed", message.partition(), message.offset())
        try:
            consumer.commit(message, asynchronous=False)
            tell("committed", message.partition(), message.offset() + 1)
        except KafkaException:
            # Another member has the partition now, or the broker is away: somebody processes the record again.
            pass
    consumer.close()


def kafkapython(bootstrap, group, topic, assignor):
    from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition
    from kafka.coordinator.assignors.range import RangePartitionAssignor
    from kafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
    from kafka.errors import KafkaError

    stop = until_closed()
    assignors = {"range": RangePartitionAssignor, "roundrobin": RoundRobinPartitionAssignor}
    consumer = KafkaConsumer(topic, bootstrap_servers=bootstrap, group_id=group, auto_offset_reset="earliest",
                             enable_auto_commit=False, session_timeout_ms=SESSION_MS, heartbeat_interval_ms=500,
                             max_poll_records=1, partition_assignment_strategy=[assignors[assignor]])
    while not stop.is_set():
        for partition, messages in consumer.poll(timeout_ms=100).items():
            for message in messages:
                time.sleep(WORK_S)
                tell("processed", message.partition, message.offset)
                try:
                    consumer.commit({TopicPartition(topic, message.partition): OffsetAndMetadata(message.offset + 1, "", -1)})
                    tell("committed", message.partition, message.offset + 1)
                except KafkaError:
                    pass
    consumer.close()


async def aio(bootstrap, group, topic, assignor):
    from aiokafka import AIOKafkaConsumer, TopicPartition
    from aiokafka.coordinator.assignors.range import RangePartitionAssignor
    from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
    from aiokafka.errors import KafkaError

    stop = until_closed()
    assignors = {"range": RangePartitionAssignor, "roundrobin": RoundRobinPartitionAssignor}
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, group_id=group, auto_offset_reset="earliest",
                                enable_auto_commit=False, session_timeout_ms=SESSION_MS, heartbeat_interval_ms=500,
                                max_poll_records=1, partition_assignment_strategy=[assignors[assignor]])
    await consumer.start()
    while not stop.is_set():
        for partition, messages in (await consumer.getmany(timeout_ms=100, max_records=1)).items():
            for message in messages:
                await asyncio.sleep(WORK_S)
                tell("processed", message.partition, message.offset)
                try:
                    await consumer.commit({TopicPartition(topic, message.partition): message.offset + 1})
                    tell("committed", message.partition, message.offset + 1)
                except KafkaError:
                    pass
    await consumer.stop()


if __name__ == "__main__":
    client, *arguments = sys.argv[1:]
    if client == "aio":
        asyncio.run(aio(*arguments))
    else:
        {"confluent": confluent, "kafkapython": kafkapython}[client](*arguments)
