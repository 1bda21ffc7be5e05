"""The adapters that are programs in other languages: see java/Adapter.java, js/adapter.js and ../rdkafka."""

from harness.adapter import ProcessClient
from harness.paths import CACHE, CLIENTS, kafka_libs


def java(version: str) -> list[str]:
    """Command of the Java adapter, compiled by tests/run against that version's jars."""
    classes = CACHE / f"kafka{version}" / "classes"
    return ["java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", f"-Dlog4j.configuration=file:{CLIENTS / 'java' / 'log4j.properties'}",
            "-cp", f"{classes}:{kafka_libs(version)}/*", "Adapter"]


class Java39(ProcessClient):
    name = "Java client 3.9"
    command = java("39")


class Java41(ProcessClient):
    name = "Java client 4.1"
    command = java("41")


class KafkaJs(ProcessClient):
    name = "kafkajs"
    command = ["node", str(CLIENTS / "js" / "adapter.js")]
    # kafkajs consumes through groups only.
    consumes = False
    # It writes no header at all for a null value, and refuses an empty list of values.
    null_headers = False
    # It takes headers as an object of names.
    ordered_headers = False


class RustRdkafka(ProcessClient):
    name = "rdkafka crate"
    command = [str(CACHE / "rdkafka-target" / "release" / "corelog-rdkafka-tests")]
