"""Groups of the new protocol (KIP-848): the broker assigns, members of Java 3.9 and 4.1 and of librdkafka share a topic, leave, die, hang and
come back."""

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

from harness import members as workers
from harness import offsets_log, raw
from harness.paths import CLIENTS, kafka_libs
from harness.records import Record
from harness.tools import Tools
from harness.wait import wait_for_leader, wait_until

pytestmark = pytest.mark.timeout(200)
SOURCES = CLIENTS / "consumer_groups"
PARTITIONS = 6
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


@pytest.fixture
def start():
    """A factory of processes with a member in a group that works on real events; whoever is left in the end is ended."""
    started = []

    def one(client, broker):
        started.append(workers.Process(client, broker, "events", [GROUP]))
        return started[-1]

    yield one
    for process in started:
        process.end()


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


GROUP = "consumer"
# Java 3.9, where the protocol is a preview, leaves before the others' partitions come to it: when it gets some twice within a moment, it may take
# those of the second time for ones of which nothing is committed, and read them from their beginning.
LEAVES, DIES, HANGS = "java39", "confluent", "java41"
UNKNOWN_MEMBER_ID, STALE_MEMBER_EPOCH, UNSUPPORTED_VERSION = 25, 113, 35


def test_members_of_several_clients_leave_die_and_hang_and_the_broker_dies(own_broker, connect, start):
    broker = own_broker(SETTINGS | {"offsets.topic.num.partitions": str(workers.OFFSETS_PARTITIONS), "log.retention.ms": "-1"})
    admin = connect("confluent", broker)
    admin.create_topic("events", workers.PARTITIONS, {})
    wait_for_leader(broker, "events", workers.PARTITIONS)
    of = {name: start(client, broker) for name, client in
          {"confluent": "confluent", "java41": "java41", "java39": "java39", "stays": "confluent"}.items()}
    processes = list(of.values())
    wait_for_leader(broker, "__consumer_offsets", workers.OFFSETS_PARTITIONS)
    now = {}

    def look():
        now.clear()
        now.update(holdings(workers.log_of(admin, broker, GROUP))[-1])
        return now

    def are_shared_by(count):
        return len(look()) == count and all(holding.partitions for holding in now.values()) and \
            sum(len(holding.assigned) for holding in now.values()) == workers.PARTITIONS

    # Nobody is done before the others have begun.
    wait_until(lambda: are_shared_by(4), lambda: f"who has what: {now}", 60)
    values = workers.fill(admin, "events")
    total = sum(map(len, values))

    def reach(part, seconds=60):
        wait_until(lambda: sum(workers.progress(processes, GROUP)) >= part * total,
                   lambda: f"work stands still: {workers.progress(processes, GROUP)}", seconds)

    wait_until(lambda: all(process.told for process in processes), lambda: f"not all work: {[len(p.told) for p in processes]}", 40)
    of[LEAVES].end()
    reach(0.2)
    of[DIES].signal(signal.SIGKILL)
    processes.append(start(DIES, broker))
    reach(0.35)
    hangs, before = member_of(admin, broker, HANGS), dict(look())
    of[HANGS].signal(signal.SIGSTOP)
    reach(0.5)
    broker.kill()
    broker.start()
    wait_until(lambda: hangs not in look(), lambda: f"who hangs is never replaced: {now}", 40)
    # What it had is another's: nothing that it says counts any more, and nothing of an earlier epoch.
    assert before[hangs].partitions, before
    assert commit(broker, before[hangs]) == UNKNOWN_MEMBER_ID
    wait_until(lambda: any(of_now.epoch > before[member].epoch for member, of_now in look().items() if member in before),
               lambda: f"nobody has heard of a new epoch: {before} {now}", 20)
    for member, of_now in now.items():
        if member in before and of_now.epoch > before[member].epoch:
            assert commit(broker, before[member]) == STALE_MEMBER_EPOCH, (before[member], of_now)
            # Whoever does not know of epochs has no say in such a group.
            assert raw.commit(broker.port, GROUP, of_now.epoch, member, "events", 0, 0) == UNSUPPORTED_VERSION
    of[HANGS].signal(signal.SIGCONT)
    reach(1.0, 90)
    ends = [len(of_partition) for of_partition in values]
    wait_until(lambda: workers.ends(admin, broker, GROUP) == ends, lambda: f"not all is committed: {workers.ends(admin, broker, GROUP)}", 30)
    for process in processes:
        process.end()

    entries = workers.log_of(admin, broker, GROUP)
    states = holdings(entries)
    assert not states[-1], f"all have left: {states[-1]}"
    assert max(len(state) for state in states) >= 4
    assert {"confluent", "java39", "java41"} == {entry.client for entry in entries if isinstance(entry, offsets_log.Profile)}
    workers.assert_commits_only_advance(processes, GROUP, entries)
    workers.assert_contents(processes, GROUP, values)
    workers.assert_read_again_from_the_last_commit(processes, GROUP, entries)


def holdings(entries):
    """What each member has, after each record of the log: at no time has a partition two members, and no epoch goes back."""
    states = [{}]
    for entry in entries:
        if not isinstance(entry, offsets_log.Holding):
            continue
        state = dict(states[-1])
        before = state.pop(entry.member, None)
        if entry.epoch is not None:
            taken = {partition for other in state.values() for partition in other.partitions}
            assert not entry.partitions & taken, f"two have {entry.partitions & taken}: {entry} beside {state}"
            assert before is None or entry.epoch >= before.epoch, (before, entry)
            state[entry.member] = entry
        states.append(state)
    return states


def member_of(client, broker, name):
    """The newest member that calls itself so."""
    profiles = [entry for entry in workers.log_of(client, broker, GROUP) if isinstance(entry, offsets_log.Profile)]
    return [profile.member for profile in profiles if profile.client == name][-1]


def commit(broker, holding):
    """In a member's name, by what it had and in its epoch of then."""
    _topic, partition = min(holding.partitions)
    return raw.commit_by_epoch(broker.port, GROUP, holding.epoch, holding.member, "events", partition, 0)


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
