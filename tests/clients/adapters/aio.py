"""aiokafka: asyncio."""

import asyncio
import time

import aiokafka
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import BrokerResponseError, for_code

from harness.adapter import Client, Refused
from harness.records import Record

DEADLINE_S = 60


class AioKafka(Client):
    name = "aiokafka"

    def version(self):
        return aiokafka.__version__

    def create_topic(self, topic, partitions, config):
        async def create(admin):
            return await admin.create_topics([NewTopic(topic, partitions, 1, topic_configs=config)])

        answer = asyncio.run(self._admin(create))
        for error in answer.topic_errors:
            if error[1] != 0:
                raise for_code(error[1])(str(error))

    def delete_topic(self, topic):
        async def delete(admin):
            return await admin.delete_topics([topic])

        asyncio.run(self._admin(delete))

    def produce(self, topic, partition, records, codec, max_bytes):
        return asyncio.run(self._produce(topic, partition, records, codec, max_bytes))

    def consume(self, topic, partition, count, offset=None, timestamp=None):
        return asyncio.run(self._consume(topic, partition, count, offset, timestamp))

    def produce_file(self, topic, path, codec):
        return asyncio.run(self._produce_file(topic, path, codec))

    async def _admin(self, action):
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            return await action(admin)
        finally:
            await admin.close()

    async def _produce(self, topic, partition, records, codec, max_bytes):
        async with self._producer(codec, max_bytes) as producer:
            try:
                sent = [await producer.send(topic, record.value, record.key, partition, record.timestamp,
                                            list(record.headers)) for record in records]
                done = await asyncio.wait_for(asyncio.gather(*sent), DEADLINE_S)
            except BrokerResponseError as error:
                raise Refused(error.errno, str(error))
            return [metadata.offset for metadata in done]

    async def _produce_file(self, topic, path, codec):
        sent = []
        async with self._producer(codec, 1_000_000) as producer:
            for line in open(path, "rb"):
                key, timestamp, value = line.rstrip(b"\n").split(b"\t", 2)
                sent.append(await producer.send(topic, value, key, timestamp_ms=int(timestamp)))
            await asyncio.wait_for(asyncio.gather(*sent), DEADLINE_S)
        return len(sent)

    def _producer(self, codec, max_bytes):
        return AIOKafkaProducer(bootstrap_servers=self.bootstrap, acks="all", linger_ms=20, max_request_size=max_bytes,
                                compression_type=None if codec == "none" else codec)

    async def _consume(self, topic, partition, count, offset, timestamp):
        consumer = AIOKafkaConsumer(bootstrap_servers=self.bootstrap, group_id=None, auto_offset_reset="none")
        await consumer.start()
        try:
            assigned = TopicPartition(topic, partition)
            consumer.assign([assigned])
            if timestamp is not None:
                offset = (await consumer.offsets_for_times({assigned: timestamp}))[assigned].offset
            consumer.seek(assigned, offset)
            records, deadline = [], time.monotonic() + DEADLINE_S
            while len(records) < count:
                found = await consumer.getmany(timeout_ms=1000, max_records=count - len(records))
                for message in found.get(assigned, []):
                    records.append(Record(message.value, message.key, list(message.headers), message.timestamp,
                                          message.offset))
                assert time.monotonic() < deadline, f"{len(records)} of {count} records within {DEADLINE_S} s"
            return records
        finally:
            await consumer.stop()
