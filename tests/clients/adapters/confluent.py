"""confluent-kafka for Python (librdkafka)."""

import threading
import time

import confluent_kafka
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from harness.adapter import Client, Refused
from harness.records import Record

DEADLINE_S = 60
# How often the running clients of the re-creation test refresh metadata by themselves.
REFRESH_MS = 2000


class Confluent(Client):
    name = "confluent-kafka"

    def version(self):
        return f"{confluent_kafka.version()} (librdkafka {confluent_kafka.libversion()[0]})"

    def create_topic(self, topic, partitions, config, seconds=60):
        admin = AdminClient({"bootstrap.servers": self.bootstrap, "socket.timeout.ms": seconds * 1000})
        admin.create_topics([NewTopic(topic, partitions, 1, config=config)], request_timeout=seconds)[topic].result(seconds + 10)

    def delete_topic(self, topic, seconds=60):
        admin = AdminClient({"bootstrap.servers": self.bootstrap, "socket.timeout.ms": seconds * 1000})
        admin.delete_topics([topic], request_timeout=seconds)[topic].result(seconds + 10)

    def produce(self, topic, partition, records, codec, max_bytes):
        producer = self._producer(codec, max_bytes)
        offsets, errors = {}, []

        def delivered(index):
            def on_delivery(error, message):
                if error is not None:
                    errors.append(error)
                else:
                    offsets[index] = message.offset()

            return on_delivery

        for index, record in enumerate(records):
            extra = {} if record.timestamp is None else {"timestamp": record.timestamp}
            producer.produce(topic, record.value, record.key, partition, delivered(index), headers=record.headers, **extra)
        left = producer.flush(DEADLINE_S)
        if errors:
            raise Refused(errors[0].code(), errors[0].str())
        assert left == 0, f"{left} records not delivered within {DEADLINE_S} s"
        return [offsets[index] for index in range(len(records))]

    def consume(self, topic, partition, count, offset=None, timestamp=None):
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": "unused", "enable.auto.commit": False,
                             "auto.offset.reset": "error"})
        try:
            if timestamp is not None:
                offset = consumer.offsets_for_times([TopicPartition(topic, partition, timestamp)], 30)[0].offset
            consumer.assign([TopicPartition(topic, partition, offset)])
            records, deadline = [], time.monotonic() + DEADLINE_S
            while len(records) < count:
                for message in consumer.consume(min(count - len(records), 10_000), 1):
                    if message.error():
                        raise KafkaException(message.error())
                    records.append(Record(message.value(), message.key(), list(message.headers() or []),
                                          message.timestamp()[1], message.offset()))
                assert time.monotonic() < deadline, f"{len(records)} of {count} records within {DEADLINE_S} s"
            return records
        finally:
            consumer.close()

    def produce_file(self, topic, path, codec):
        producer = self._producer(codec, 1_000_000)
        errors, count = [], 0

        def on_delivery(error, _message):
            if error is not None:
                errors.append(error)

        for line in open(path, "rb"):
            key, timestamp, value = line.rstrip(b"\n").split(b"\t", 2)
            while True:
                try:
                    producer.produce(topic, value, key, timestamp=int(timestamp), on_delivery=on_delivery)
                    break
                except BufferError:
                    producer.poll(0.1)
            count += 1
        assert producer.flush(DEADLINE_S) == 0 and not errors, errors[:3]
        return count

    def traffic_start(self, topic, partition):
        self.stop = threading.Event()
        self.seen = {"produced": [], "consumed": [], "errors": []}
        self.threads = [threading.Thread(target=self._send_on, args=(topic, partition)),
                        threading.Thread(target=self._read_on, args=(topic, partition))]
        for thread in self.threads:
            thread.start()

    def traffic_stop(self):
        self.stop.set()
        for thread in self.threads:
            thread.join(30)
        return self.seen

    def _producer(self, codec, max_bytes):
        return Producer({"bootstrap.servers": self.bootstrap, "compression.type": codec, "acks": "all", "linger.ms": 20,
                         "message.max.bytes": max_bytes, "queue.buffering.max.messages": 200_000})

    def _send_on(self, topic, partition):
        producer = Producer({"bootstrap.servers": self.bootstrap, "acks": "all", "linger.ms": 0,
                             "topic.metadata.refresh.interval.ms": REFRESH_MS, "message.timeout.ms": 5000})

        def on_delivery(error, message):
            if error is not None:
                self.seen["errors"].append(error.str())
            else:
                self.seen["produced"].append([now_ms(), message.offset()])

        number = 0
        while not self.stop.is_set():
            try:
                producer.produce(topic, b"%d" % number, partition=partition, on_delivery=on_delivery)
                number += 1
            except (KafkaException, BufferError) as error:
                self.seen["errors"].append(str(error))
            producer.poll(0.01)
        producer.flush(10)

    def _read_on(self, topic, partition):
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": "unused", "enable.auto.commit": False,
                             "topic.metadata.refresh.interval.ms": REFRESH_MS, "auto.offset.reset": "earliest"})
        consumer.assign([TopicPartition(topic, partition, 0)])
        while not self.stop.is_set():
            message = consumer.poll(0.1)
            if message is None:
                continue
            if message.error():
                code = message.error().code()
                if code != KafkaError._PARTITION_EOF:
                    self.seen["errors"].append(message.error().str())
            else:
                self.seen["consumed"].append([now_ms(), message.offset(), message.value().decode()])
        consumer.close()


def now_ms() -> int:
    return int(time.time() * 1000)
