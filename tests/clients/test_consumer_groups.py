"""Groups of the new protocol (KIP-848): the broker assigns, members of Java 4.1 and librdkafka share a topic, die and come back."""

import json
import re
import signal
import subprocess
import sys
import threading
import time

import pytest
from confluent_kafka import ConsumerGroupType
from confluent_kafka.admin import AdminClient

from harness.paths import CLIENTS, kafka_libs
from harness.records import Record
from harness.tools import Tools
from harness.wait import wait_for_leader, wait_until

pytestmark = pytest.mark.timeout(150)
SOURCES = CLIENTS / "consumer_groups"
PARTITIONS = 6
RECORDS = 80
# Of each partition, while members come and go.
PORTION = 8
# So that whoever dies is missed soon.
SETTINGS = {f"group.consumer.{bound}session.timeout.ms": "6000" for bound in ("min.", "")} \
    | {f"group.consumer.{bound}heartbeat.interval.ms": "500" for bound in ("min.", "")}


class Member:
    """A process of member.py or Member.java; everything it told, in order."""

    def __init__(self, command, log):
        self.log = open(log, "w")
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True)
        self.told = []
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            try:
                self.told.append(json.loads(line))
            except ValueError:
                # Killed within a line.
                pass

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def end(self):
        self.process.stdin.close()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.reader.join()
        self.log.close()


@pytest.fixture(scope="session")
def java_classes(tmp_path_factory):
    classes = tmp_path_factory.mktemp("consumer-groups")
    subprocess.run(["javac", "-cp", f"{kafka_libs('41')}/*", "-d", classes, SOURCES / "Member.java"], check=True)
    return classes


@pytest.fixture
def join(java_classes, tmp_path):
    """A factory of members; whoever is left in the end is ended."""
    members = []
    commands = {
        "confluent": [sys.executable, str(SOURCES / "member.py")],
        "java41": ["java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
                   f"-Dlog4j.configuration=file:{CLIENTS / 'java' / 'log4j.properties'}",
                   "-cp", f"{kafka_libs('41')}/*:{java_classes}", "Member"],
    }

    def start(client, broker, group, topic, protocol="consumer", *more):
        command = [*commands[client], broker.bootstrap, group, topic, protocol, *more]
        members.append(Member(command, tmp_path / f"{client}-{len(members)}.log"))
        return members[-1]

    yield start
    for member in members:
        if member.process.poll() is None:
            member.end()


def fill(admin, broker, topic, partitions, records):
    admin.create_topic(topic, partitions, {})
    wait_for_leader(broker, topic, partitions)
    for partition in range(partitions):
        if records:
            admin.produce(topic, partition, [Record(b"%d" % n) for n in range(records)], "none", 1_000_000)


def processed(members):
    return {(line[2], line[3]) for member in list(members) for line in list(member.told) if line[1] == "processed"}


def assert_at_least_once(members, records):
    """Nothing is left out, and what is processed again lies behind the last commit."""
    done = {partition: 0 for partition in range(PARTITIONS)}
    committed = dict(done)
    lines = sorted((*line, number) for number, member in enumerate(members) for line in member.told)
    for at, (_, what, partition, offset, _) in enumerate(lines):
        if what == "committed":
            committed[partition] = max(committed[partition], offset)
            continue
        if offset != done[partition]:
            # Somebody begins anew: not before what is committed, and not behind what was processed.
            assert committed[partition] <= offset <= done[partition], "\n".join(
                [f"partition {partition}: {offset} after {done[partition]}, committed {committed[partition]}"]
                + [str(line) for line in lines[:at + 6] if line[2] == partition][-24:])
        done[partition] = max(done[partition], offset + 1)
    assert all(count == records for count in done.values()), done


def owners(tools, group):
    """Which member has each partition, as the broker tells it."""
    described = tools.run("consumer-groups", "--describe", "--group", group, check=False)
    rows = re.findall(rf"^{group}\s+work\s+(\d+)\s+\S+\s+\S+\s+\S+\s+(\S+)", described, re.M)
    assert len(rows) == len({partition for partition, _ in rows}), described
    return {int(partition): member for partition, member in rows if member != "-"}


def test_members_of_two_clients_die_and_the_broker_too(own_broker, connect, join):
    broker = own_broker(SETTINGS)
    admin, tools = connect("confluent", broker), Tools("41", broker)
    fill(admin, broker, "work", PARTITIONS, 0)
    members = [join(client, broker, "workers", "work") for client in ("confluent", "java41", "confluent")]
    now = {}

    def are_shared_by(count):
        now.clear()
        now.update(owners(tools, "workers"))
        return len(now) == PARTITIONS and len(set(now.values())) == count

    # Nobody is done before the others have begun.
    wait_until(lambda: are_shared_by(3), lambda: f"the owners are {now}", 60)
    for partition in range(PARTITIONS):
        admin.produce("work", partition, [Record(b"%d" % n) for n in range(RECORDS)], "none", 1_000_000)
    wait_until(lambda: all(member.told for member in members), lambda: f"not all work: {[len(m.told) for m in members]}", 40)
    members[0].kill()
    broker.kill()
    broker.start()
    members.append(join("java41", broker, "workers", "work"))
    wait_until(lambda: len(processed(members)) > PARTITIONS * RECORDS // 2, "work stands still", 40)
    members[2].end()
    wait_until(lambda: len(processed(members)) == PARTITIONS * RECORDS, lambda: f"{len(processed(members))} records were processed", 60)

    wait_until(lambda: are_shared_by(2), lambda: f"the owners are {now}", 20)
    for member in members[1::2]:
        member.end()
    assert_at_least_once(members, RECORDS)


def test_the_tool_sees_them_and_patterns_find_new_topics(own_broker, connect, join):
    broker = own_broker(SETTINGS)
    admin = connect("confluent", broker)
    fill(admin, broker, "seen-a", 2, 10)
    member = join("java41", broker, "seers", "^seen-.*", "consumer", "eye-1")
    wait_until(lambda: len(processed([member])) == 20, "the pattern's first topic is not read", 30)
    tools = Tools("41", broker)
    assert re.search(r"^seers\s+Consumer", tools.run("consumer-groups", "--list", "--type", "consumer"), re.M | re.I)
    assert "seers" not in tools.run("consumer-groups", "--list", "--type", "classic")
    state = tools.run("consumer-groups", "--describe", "--group", "seers", "--state")
    assert re.search(r"^seers\s.*\suniform\s+Stable\s+1", state, re.M), state
    who = tools.run("consumer-groups", "--describe", "--group", "seers", "--members", "--verbose")
    assert re.search(r"^seers\s.*eye-1.*seen-a", who, re.M), who

    fill(admin, broker, "seen-b", 3, 10)
    # Partition 2 is of the second topic alone.
    wait_until(lambda: len({line for line in processed([member]) if line[0] == 2}) == 10, "a new topic is not found", 30)
    assert "not empty" in tools.run("consumer-groups", "--delete", "--group", "seers", check=False).lower()
    member.end()
    # A static member that is away has its place until its session is over.
    wait_until(lambda: re.search(r"^seers\s.*\sEmpty\s+0", tools.run("consumer-groups", "--describe", "--group", "seers", "--state"), re.M),
               "the member does not go", 20)
    assert "Deletion of requested consumer groups" in tools.run("consumer-groups", "--delete", "--group", "seers")
    assert "seers" not in tools.run("consumer-groups", "--list")


def test_members_change_their_protocol_while_they_work(own_broker, connect, join):
    broker = own_broker(SETTINGS | {"group.initial.rebalance.delay.ms": "0"})
    producer = connect("confluent", broker)
    fill(producer, broker, "work", PARTITIONS, 0)
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    members, produced = [], 0

    def kind():
        return {group.group_id: group.type for group in admin.list_consumer_groups().result().valid}.get("movers")

    def become(wanted):
        """Work comes until the group is of this kind, and everybody has had a part of it since."""
        nonlocal produced
        before = [len(member.told) for member in members]
        alive = [at for at, member in enumerate(members) if member.process.poll() is None]
        deadline = time.monotonic() + 40
        while kind() != wanted or any(len(members[at].told) == before[at] for at in alive):
            assert time.monotonic() < deadline, f"the group is {kind()}, they have told {before} and {[len(m.told) for m in members]}"
            for partition in range(PARTITIONS):
                producer.produce("work", partition, [Record(b"%d" % n) for n in range(PORTION)], "none", 1_000_000)
            produced += PORTION
            time.sleep(0.3)

    members.append(join("confluent", broker, "movers", "work", "classic"))
    become(ConsumerGroupType.CLASSIC)
    members.append(join("java41", broker, "movers", "work", "consumer"))
    become(ConsumerGroupType.CONSUMER)
    members.append(join("java41", broker, "movers", "work", "classic"))
    become(ConsumerGroupType.CONSUMER)
    members[1].end()
    become(ConsumerGroupType.CLASSIC)
    members.append(join("confluent", broker, "movers", "work", "consumer"))
    become(ConsumerGroupType.CONSUMER)
    members[0].end()
    members[2].end()
    become(ConsumerGroupType.CONSUMER)
    wait_until(lambda: len(processed(members)) == PARTITIONS * produced, lambda: f"{len(processed(members))} records were processed", 60)
    members[3].end()
    assert_at_least_once(members, produced)
