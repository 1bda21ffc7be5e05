"""Apache Kafka's command-line tools, each in its own JVM as a user runs them."""

import subprocess

from .paths import CLIENTS, kafka_libs

TIMEOUT_S = 60
TOOLS = {
    "topics": "org.apache.kafka.tools.TopicCommand",
    "configs": "kafka.admin.ConfigCommand",
    "get-offsets": "org.apache.kafka.tools.GetOffsetShell",
    "log-dirs": "org.apache.kafka.tools.LogDirsCommand",
    "delete-records": "org.apache.kafka.tools.DeleteRecordsCommand",
    "consumer-groups": "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
    "console-consumer": "org.apache.kafka.tools.consumer.ConsoleConsumer",
    "console-producer": {"39": "kafka.tools.ConsoleProducer", "41": "org.apache.kafka.tools.ConsoleProducer"},
    "producer-perf-test": "org.apache.kafka.tools.ProducerPerformance",
    "broker-api-versions": {"39": "kafka.admin.BrokerApiVersionsCommand", "41": "org.apache.kafka.tools.BrokerApiVersionsCommand"},
    "dump-log": "kafka.tools.DumpLogSegments",
}


class Tools:
    """The tools of one Kafka version ("39", "41") against one broker."""

    def __init__(self, version: str, broker):
        self.version, self.broker = version, broker

    def run(self, tool: str, *arguments: str, data: bytes = b"", check: bool = True) -> str:
        """Runs a tool; returns what it printed. Most tools tell of errors in words only, so those are looked for."""
        main = TOOLS[tool] if isinstance(TOOLS[tool], str) else TOOLS[tool][self.version]
        command = ["java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
                   f"-Dlog4j.configuration=file:{CLIENTS / 'java' / 'log4j.properties'}",
                   "-cp", f"{kafka_libs(self.version)}/*", main]
        if tool not in ("dump-log", "producer-perf-test"):
            command += ["--bootstrap-server", self.broker.bootstrap]
        done = subprocess.run([*command, *arguments], input=data, capture_output=True, timeout=TIMEOUT_S)
        output = done.stdout.decode() + done.stderr.decode()
        if check:
            assert done.returncode == 0, f"{tool} {arguments} ended with {done.returncode}:\n{output}"
            assert "Exception" not in output, f"{tool} {arguments}:\n{output}"
        return output
