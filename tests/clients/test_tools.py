"""Apache Kafka's own command-line tools, 3.9 and 4.1: what an operator types, and what must come of it."""

import json
import re

import pytest

from harness import raw
from harness.records import Record
from harness.tools import Tools
from harness.wait import wait_for_leader, wait_until

pytestmark = pytest.mark.timeout(180)
# The rows of the table of clients that these tests count for.
VERSIONS = ["java39", "java41"]


@pytest.fixture
def tools(client, broker, client_of):
    client_of(client)  # notes its version for the table
    return Tools(client.removeprefix("java"), broker)


@pytest.mark.parametrize("client", VERSIONS)
def test_topics(client, tools, broker, topic):
    created = tools.run("topics", "--create", "--topic", topic, "--partitions", "3", "--config", "retention.ms=3600000")
    assert f"Created topic {topic}." in created
    wait_for_leader(broker, topic, 3)
    assert topic in tools.run("topics", "--list").split()

    described = tools.run("topics", "--describe", "--topic", topic)
    assert re.search(rf"Topic: {topic}\s+TopicId: \S{{22}}\s+PartitionCount: 3\s+ReplicationFactor: 1\s+Configs: .*retention.ms=3600000", described), described
    for partition in range(3):
        assert re.search(rf"Topic: {topic}\s+Partition: {partition}\s+Leader: (\d+)\s+Replicas: \1\s+Isr: \1", described), described

    tools.run("topics", "--alter", "--topic", topic, "--partitions", "5")
    wait_for_leader(broker, topic, 5)
    assert "PartitionCount: 5" in tools.run("topics", "--describe", "--topic", topic)

    again = tools.run("topics", "--create", "--topic", topic, "--partitions", "3", check=False)
    assert "TopicExistsException" in again, again
    fewer = tools.run("topics", "--alter", "--topic", topic, "--partitions", "2", check=False)
    assert "InvalidPartitionsException" in fewer, fewer
    bad = tools.run("topics", "--create", "--topic", topic + "/bad", "--partitions", "1", check=False)
    assert "InvalidTopicException" in bad, bad

    tools.run("topics", "--delete", "--topic", topic)
    wait_until(lambda: not raw.exists(broker.port, topic), "the topic is still listed")


@pytest.mark.parametrize("client", VERSIONS)
def test_configs(client, tools, broker, topic, client_of):
    client_of("confluent").create_topic(topic, 1, {})
    wait_for_leader(broker, topic)
    entity = ["--entity-type", "topics", "--entity-name", topic]
    tools.run("configs", "--alter", *entity, "--add-config", "retention.ms=86400000,max.message.bytes=2000000")
    described = tools.run("configs", "--describe", *entity)
    assert "retention.ms=86400000" in described and "max.message.bytes=2000000" in described, described
    assert "DYNAMIC_TOPIC_CONFIG:retention.ms=86400000" in described, described

    tools.run("configs", "--alter", *entity, "--delete-config", "retention.ms")
    described = tools.run("configs", "--describe", *entity)
    assert "retention.ms" not in described and "max.message.bytes=2000000" in described, described
    everything = tools.run("configs", "--describe", "--all", *entity)
    assert re.search(r"retention\.ms=604800000 sensitive=false", everything), everything
    assert re.search(r"segment\.bytes=1073741824 sensitive=false.*DEFAULT_CONFIG:log\.segment\.bytes=1073741824", everything), everything

    bad = tools.run("configs", "--alter", *entity, "--add-config", "retention.ms=soon", check=False)
    assert "InvalidConfigurationException" in bad, bad
    unknown = tools.run("configs", "--alter", *entity, "--add-config", "no.such.config=1", check=False)
    assert "InvalidConfigurationException" in unknown, unknown

    node = str(min(raw.metadata(broker.port, [])[0]))
    brokers = tools.run("configs", "--describe", "--all", "--entity-type", "brokers", "--entity-name", node)
    assert re.search(r"log\.retention\.hours=168 sensitive=false", brokers), brokers


@pytest.mark.parametrize("client", VERSIONS)
def test_offsets_log_dirs_and_delete_records(client, tools, broker, topic, client_of, tmp_path):
    confluent = client_of("confluent")
    confluent.create_topic(topic, 2, {})
    wait_for_leader(broker, topic, 2)
    for partition, count in ((0, 10), (1, 25)):
        confluent.produce(topic, partition, [Record(b"%d" % n) for n in range(count)], "none", 1_000_000)

    assert offsets(tools, topic, "-1") == {0: 10, 1: 25}
    assert offsets(tools, topic, "-2") == {0: 0, 1: 0}
    assert offsets(tools, topic, "max-timestamp").keys() == {0, 1}
    middle = confluent.consume(topic, 1, 1, offset=24)[0].timestamp
    assert offsets(tools, topic, str(middle))[1] <= 24

    (tmp_path / "delete.json").write_text(json.dumps(
        {"partitions": [{"topic": topic, "partition": 1, "offset": 7}, {"topic": topic, "partition": 0, "offset": -1}], "version": 1}))
    output = tools.run("delete-records", "--offset-json-file", str(tmp_path / "delete.json"))
    assert re.search(rf"partition: {topic}-1\s+low_watermark: 7", output), output
    assert re.search(rf"partition: {topic}-0\s+low_watermark: 10", output), output
    assert offsets(tools, topic, "-2") == {0: 10, 1: 7}
    assert offsets(tools, topic, "-1") == {0: 10, 1: 25}
    assert [r.value for r in confluent.consume(topic, 1, 18, offset=7)] == [b"%d" % n for n in range(7, 25)]

    output = tools.run("log-dirs", "--describe", "--topic-list", topic)
    described = json.loads(next(line for line in output.splitlines() if line.startswith("{")))
    sizes = {part["partition"]: part["size"] for node in described["brokers"] for directory in node["logDirs"]
             for part in directory["partitions"]}
    assert sizes.keys() == {f"{topic}-0", f"{topic}-1"} and sizes[f"{topic}-1"] > 100, output
    assert all(directory["error"] is None for node in described["brokers"] for directory in node["logDirs"]), output


@pytest.mark.parametrize("client", VERSIONS)
def test_console_producer_and_consumer(client, tools, broker, topic, client_of):
    client_of("confluent").create_topic(topic, 1, {})
    wait_for_leader(broker, topic)
    lines = b"".join(b"key%d:value %d\n" % (n, n) for n in range(50))
    tools.run("console-producer", "--topic", topic, "--property", "parse.key=true", "--property", "key.separator=:",
              "--compression-codec", "lz4", data=lines)
    output = tools.run("console-consumer", "--topic", topic, "--partition", "0", "--offset", "20", "--max-messages", "30",
                       "--timeout-ms", "20000", "--property", "print.key=true", "--property", "print.offset=true")
    found = re.findall(r"Offset:(\d+)\tkey(\d+)\tvalue (\d+)", output)
    assert found == [(str(n), str(n), str(n)) for n in range(20, 50)], output
    output = tools.run("console-consumer", "--topic", topic, "--partition", "0", "--offset", "earliest", "--max-messages",
                       "50", "--timeout-ms", "20000")
    assert re.findall(r"value (\d+)", output) == [str(n) for n in range(50)], output
    assert {batch.codec for batch in raw.batches(broker.port, topic, 0)} == {"lz4"}


@pytest.mark.parametrize("client", VERSIONS)
def test_producer_perf_test(client, tools, broker, topic, client_of):
    client_of("confluent").create_topic(topic, 4, {})
    wait_for_leader(broker, topic, 4)
    output = tools.run("producer-perf-test", "--topic", topic, "--num-records", "100000", "--record-size", "200",
                       "--throughput", "-1", "--producer-props", f"bootstrap.servers={broker.bootstrap}", "acks=all",
                       "enable.idempotence=true", "compression.type=zstd")
    assert re.search(r"^100000 records sent, .* 99.9th", output, re.M), output
    assert sum(offsets(tools, topic, "-1").values()) == 100_000
    stored = [batch for partition in range(4) for batch in raw.batches(broker.port, topic, partition)]
    assert sum(batch.count for batch in stored) == 100_000


@pytest.mark.parametrize("client", VERSIONS)
def test_broker_api_versions(client, tools):
    output = tools.run("broker-api-versions")
    for served in ("Produce(0): 0 to ", "Fetch(1): ", "CreateTopics(19): ", "ApiVersions(18): 0 to "):
        assert served in output, output


def offsets(tools, topic, time):
    output = tools.run("get-offsets", "--topic", topic, "--time", time)
    return {int(partition): int(offset) for partition, offset in re.findall(rf"^{topic}:(\d+):(-?\d+)$", output, re.M)}
