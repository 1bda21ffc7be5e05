"""Every client under test, by the name that tests/run and pytest use."""

from adapters.aio import AioKafka
from adapters.confluent import Confluent
from adapters.kafkapython import KafkaPython
from adapters.kcat import Kcat
from adapters.processes import Java39, Java41, KafkaJs, RustRdkafka
from harness.adapter import ProcessClient

__all__ = ["ALL", "ProcessClient"]

ALL = {
    "kcat": Kcat,
    "confluent": Confluent,
    "rdkafka": RustRdkafka,
    "java39": Java39,
    "java41": Java41,
    "kafkapython": KafkaPython,
    "aiokafka": AioKafka,
    "kafkajs": KafkaJs,
}
