"""kafka-python: a client in pure Python."""

import time

import kafka
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic
from kafka.errors import BrokerResponseError

from harness.adapter import Client, Refused
from harness.records import Record

DEADLINE_S = 60


class KafkaPython(Client):
    name = "kafka-python"
    # Its producer refuses a header whose value is None.
    null_headers = False

    def version(self):
        return kafka.__version__

    def create_topic(self, topic, partitions, config):
        admin = KafkaAdminClient(bootstrap_servers=self.bootstrap)
        admin.create_topics([NewTopic(topic, partitions, 1, topic_configs=config)])
        admin.close()

    def delete_topic(self, topic):
        admin = KafkaAdminClient(bootstrap_servers=self.bootstrap)
        admin.delete_topics([topic])
        admin.close()

    def produce(self, topic, partition, records, codec, max_bytes):
        producer = self._producer(codec, max_bytes)
        try:
            sent = [producer.send(topic, record.value, record.key, list(record.headers), partition, record.timestamp)
                    for record in records]
            return [future.get(DEADLINE_S).offset for future in sent]
        except BrokerResponseError as error:
            raise Refused(error.errno, str(error))
        finally:
            producer.close(timeout=10)

    def consume(self, topic, partition, count, offset=None, timestamp=None):
        consumer = KafkaConsumer(bootstrap_servers=self.bootstrap, group_id=None, auto_offset_reset="none")
        try:
            assigned = TopicPartition(topic, partition)
            consumer.assign([assigned])
            if timestamp is not None:
                offset = consumer.offsets_for_times({assigned: timestamp})[assigned].offset
            consumer.seek(assigned, offset)
            records, deadline = [], time.monotonic() + DEADLINE_S
            while len(records) < count:
                for message in consumer.poll(1000, count - len(records)).get(assigned, []):
                    records.append(Record(message.value, message.key, list(message.headers), message.timestamp,
                                          message.offset))
                assert time.monotonic() < deadline, f"{len(records)} of {count} records within {DEADLINE_S} s"
            return records
        finally:
            consumer.close()

    def produce_file(self, topic, path, codec):
        producer = self._producer(codec, 1_000_000)
        sent = []
        for line in open(path, "rb"):
            key, timestamp, value = line.rstrip(b"\n").split(b"\t", 2)
            sent.append(producer.send(topic, value, key, timestamp_ms=int(timestamp)))
        for future in sent:
            future.get(DEADLINE_S)
        producer.close(timeout=10)
        return len(sent)

    def _producer(self, codec, max_bytes):
        return KafkaProducer(bootstrap_servers=self.bootstrap, compression_type=None if codec == "none" else codec,
                             acks="all", linger_ms=20, max_request_size=max_bytes)
