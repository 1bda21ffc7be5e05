"""Consumer groups: members of different clients share a topic, leave, die, hang and come back, and so does the broker."""

import bisect
import hashlib
import json
import re
import signal
import subprocess
import sys
import threading
import time
import zlib

import pytest

from harness import activity, offsets_log, raw
from harness.paths import CACHE, CLIENTS, CORELOG, kafka_libs
from harness.records import Record
from harness.tools import Tools
from harness.wait import wait_for_leader, wait_until

pytestmark = pytest.mark.timeout(200)
PARTITIONS = 8
UNKNOWN_MEMBER_ID, ILLEGAL_GENERATION = 25, 22

# Which clients have an assignor, each assignor a group of its own. kafkajs has roundrobin when it is called so; `corelog consume` offers
# range and roundrobin; librdkafka has no sticky, aiokafka no cooperative one.
GROUPS = {
    "range": ["confluent", "kafkapython", "aio", "java39", "java41", "corelog"],
    "roundrobin": ["confluent", "kafkapython", "aio", "java39", "java41", "kafkajs"],
    "sticky": ["kafkapython", "aio", "java39", "java41"],
    "cooperative-sticky": ["confluent", "kafkapython", "java39", "java41"],
}
LEAVES, DIES, HANGS = "aio", "confluent", "java39"


class Process:
    """A client with its members of all groups that it can be in; everything it told, in order."""

    def __init__(self, client, broker, topic, groups):
        self.client = client
        LOGS = CACHE / "logs"
        LOGS.mkdir(parents=True, exist_ok=True)
        self.errors = open(LOGS / f"member-{client}.log", "wb")
        self.process = subprocess.Popen(self._command(broker, topic, groups), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=self.errors)
        self.told = []
        self.reader = threading.Thread(target=self._read, args=(groups[0],))
        self.reader.start()

    def _command(self, broker, topic, groups):
        memberships = [f"{group}:{group}" for group in groups]
        arguments = [broker.bootstrap, topic, *memberships]
        if self.client == "corelog":
            (group,) = groups
            return [CORELOG, "consume", topic, "-b", broker.bootstrap, "--group", group, "--assignor", group, "--session-timeout", "6s",
                    "--client-id", "corelog", "-f", "%p %o %v\\n"]
        if self.client == "kafkajs":
            return ["node", str(CLIENTS / "js" / "member.js"), self.client, *arguments]
        if self.client.startswith("java"):
            home = kafka_libs(self.client.removeprefix("java")).parent
            return ["java", "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
                    f"-Dlog4j.configuration=file:{CLIENTS / 'java' / 'log4j.properties'}",
                    "-cp", f"{home / 'classes'}:{home / 'libs'}/*", "GroupMember", self.client, *arguments]
        return [sys.executable, str(CLIENTS / "groups" / "member.py"), self.client, *arguments]

    def _read(self, group):
        for line in self.process.stdout:
            try:
                if self.client == "corelog":
                    partition, offset, value = line.rstrip(b"\n").split(b" ", 2)
                    told = [int(time.time() * 1000), group, "processed", int(partition), int(offset), int(offset) + 1, hashlib.sha1(value).hexdigest()]
                else:
                    told = json.loads(line)
            except ValueError:
                continue  # killed within a line
            self.told.append(told)

    def signal(self, number):
        self.process.send_signal(number)

    def is_alive(self):
        return self.process.poll() is None

    def end(self):
        if self.is_alive():
            # A stopped one must be able to end.
            self.signal(signal.SIGCONT)
        if self.client == "corelog":
            self.signal(signal.SIGINT)
        self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.reader.join()
        self.errors.close()


@pytest.fixture
def start():
    """A factory of processes; whoever is left in the end is ended."""
    started = []

    def one(client, broker, topic):
        groups = [group for group, clients in GROUPS.items() if client in clients]
        started.append(Process(client, broker, topic, groups))
        return started[-1]

    yield one
    for process in started:
        process.end()


def fill(client, topic):
    """The activity events by user over the partitions; what each partition holds."""
    partitions = [[] for _ in range(PARTITIONS)]
    for event in activity.load():
        partitions[zlib.crc32(event.user.encode()) % PARTITIONS].append(Record(event.line, event.user.encode(), timestamp=event.timestamp))
    for partition, records in enumerate(partitions):
        client.produce(topic, partition, records, "none", 1_000_000)
    return [[record.value for record in records] for records in partitions]


def progress(processes, group):
    """How far each partition was processed without a gap."""
    done = [0] * PARTITIONS
    ranges = sorted((told[3], told[4], told[5]) for process in processes for told in list(process.told) if told[1] == group and told[2] == "processed")
    for partition, first, following in ranges:
        if first <= done[partition]:
            done[partition] = max(done[partition], following)
    return done


def share(processes, total):
    """Of the group that is least far, how much of all records was processed."""
    return min(sum(progress(processes, group)) for group in GROUPS) / total


def test_members_of_every_client_share_each_assignor(own_broker, connect, start):
    broker = own_broker({"group.initial.rebalance.delay.ms": "1000", "offsets.topic.num.partitions": "4", "log.retention.ms": "-1"})
    admin = connect("confluent", broker)
    admin.create_topic("events", PARTITIONS, {})
    wait_for_leader(broker, "events", PARTITIONS)
    clients = dict.fromkeys(client for members in GROUPS.values() for client in members)
    members = {client: start(client, broker, "events") for client in clients}
    processes = list(members.values())
    wait_for_leader(broker, "__consumer_offsets", 4)
    # Nobody is done before the others have begun.
    shares = {}

    def everybody_has_a_share():
        shares.update((group, clients_with_partitions(admin, broker, group)) for group in GROUPS)
        return all(shares[group] == set(of) for group, of in GROUPS.items())

    wait_until(everybody_has_a_share, lambda: f"who has partitions: {shares}", 60)
    values = fill(admin, "events")
    total = sum(map(len, values))

    def reach(part, seconds=60):
        wait_until(lambda: share(processes, total) >= part, lambda: f"work stands still: {[(g, progress(processes, g)) for g in GROUPS]}", seconds)

    def everybody_works():
        return all({told[1] for told in list(member.told)} == {g for g, of in GROUPS.items() if client in of} for client, member in members.items())

    wait_until(everybody_works, lambda: f"not all work: {[(c, {t[1] for t in m.told}) for c, m in members.items()]}", 40)
    members[LEAVES].end()
    reach(0.25)
    members[DIES].signal(signal.SIGKILL)
    processes.append(start(DIES, broker, "events"))
    reach(0.4)
    members[HANGS].signal(signal.SIGSTOP)
    hung = {group: current(admin, broker, group) for group, of in GROUPS.items() if HANGS in of}
    reach(0.55)
    broker.kill()
    broker.start()

    def replaced():
        return all(HANGS not in current(admin, broker, group).members.values() for group in hung)

    wait_until(replaced, "those that hang were never replaced", 40)
    for group, generation in hung.items():
        assert_stale_commits_are_refused(broker, group, generation, current(admin, broker, group))
    members[HANGS].signal(signal.SIGCONT)
    reach(1.0, 90)

    def committed():
        return all(ends(admin, broker, group) == [len(of) for of in values] for group in GROUPS)

    wait_until(committed, lambda: f"not all is committed: {[(g, ends(admin, broker, g)) for g in GROUPS]}", 30)
    for process in processes:
        process.end()
    for group in GROUPS:
        entries = log_of(admin, broker, group)
        assert_one_owner(group, entries)
        assert_commits_only_advance(group, entries)
        assert_contents(processes, group, values)
        assert_read_again_from_the_last_commit(processes, group, entries)


def log_of(client, broker, group):
    partition = partition_of(group, 4)

    def consume(topic, partition):
        batches = raw.batches(broker.port, topic, partition)
        return client.consume(topic, partition, sum(batch.count for batch in batches), 0) if batches else []

    return offsets_log.read(consume, partition, group)


def partition_of(group, partitions):
    """Java's hash of a name."""
    number = 0
    for character in group.encode():
        number = (31 * number + character) & 0xFFFFFFFF
    return (number & 0x7FFFFFFF) % partitions


def clients_with_partitions(client, broker, group):
    """Of the newest generation, when all partitions have owners; who joins late or gives partitions away is not counted on."""
    generations = [entry for entry in log_of(client, broker, group) if isinstance(entry, offsets_log.Generation)]
    if not generations or len(generations[-1].owners) < PARTITIONS:
        return set()
    newest = generations[-1]
    return {newest.members[member] for owners in newest.owners.values() for member in owners}


def current(client, broker, group):
    return [entry for entry in log_of(client, broker, group) if isinstance(entry, offsets_log.Generation)][-1]


def ends(client, broker, group):
    last = dict.fromkeys(range(PARTITIONS), 0)
    last.update((entry.partition, entry.offset) for entry in log_of(client, broker, group) if isinstance(entry, offsets_log.Commit))
    return list(last.values())


def assert_stale_commits_are_refused(broker, group, before, now):
    """In the name of members that hang, and of those who live in an older generation."""
    for member, client in before.members.items():
        code = raw.commit(broker.port, group, before.number, member, "events", 0, 0)
        expected = UNKNOWN_MEMBER_ID if client == HANGS else (UNKNOWN_MEMBER_ID, ILLEGAL_GENERATION)
        assert code == expected or code in (expected if isinstance(expected, tuple) else ()), f"{group}: {client} got {code}"
    alive = [member for member in before.members if member in now.members]
    assert alive and now.number > before.number, f"{group}: {before} {now}"
    assert all(raw.commit(broker.port, group, before.number, member, "events", 0, 0) == ILLEGAL_GENERATION for member in alive), group


def assert_one_owner(group, entries):
    generations = [entry for entry in entries if isinstance(entry, offsets_log.Generation) and entry.members]
    numbers = [generation.number for generation in generations]
    assert numbers == sorted(set(numbers)), f"{group}: {numbers}"
    assert len(numbers) >= 4, f"{group}: members left, died and hung, and there were only generations {numbers}"
    everything = {("events", partition) for partition in range(PARTITIONS)}
    for generation in generations:
        assert generation.protocol == group
        assert all(len(owners) == 1 for owners in generation.owners.values()), f"{group}: {generation}"
        # A cooperative group first takes partitions away, and gives them to others in the next generation.
        assert set(generation.owners) == everything or group == "cooperative-sticky", f"{group}: {generation}"
    seen = {client for generation in generations for client in generation.members.values()}
    assert seen == set(GROUPS[group]), f"{group}: {seen}"
    together = max(len(set(generation.members.values())) for generation in generations)
    assert together >= len(GROUPS[group]) - 1, f"{group}: never more than {together} clients at once"


def assert_commits_only_advance(group, entries):
    last = [0] * PARTITIONS
    for entry in entries:
        if isinstance(entry, offsets_log.Commit):
            assert entry.offset >= last[entry.partition], f"{group}: a commit of {entry} after {last[entry.partition]}: of a stale owner"
            last[entry.partition] = entry.offset


def assert_contents(processes, group, values):
    for process in processes:
        for _, of, what, partition, first, following, digest in process.told:
            if of == group and what == "processed":
                assert hashlib.sha1(b"".join(values[partition][first:following])).hexdigest() == digest, (process.client, group, partition, first)


def assert_read_again_from_the_last_commit(processes, group, entries):
    """Whoever begins to read a partition does so at what was committed last: nothing else is processed twice, and nothing left out."""
    times, offsets = [[] for _ in range(PARTITIONS)], [[0] for _ in range(PARTITIONS)]
    for entry in entries:
        if isinstance(entry, offsets_log.Commit):
            times[entry.partition].append(entry.at_ms)
            offsets[entry.partition].append(entry.offset)
    for process in processes:
        following_of = {}
        for at_ms, of, what, partition, first, following, _ in process.told:
            if of != group or what != "processed":
                continue
            if following_of.get(partition) != first:
                # What corelog printed was read here some time later.
                known = [offsets[partition][bisect.bisect_right(times[partition], at_ms)]] if process.client != "corelog" else offsets[partition]
                assert first in known, f"{group}: {process.client} begins partition {partition} at {first}, committed was {known}"
            following_of[partition] = following


@pytest.mark.parametrize("client", ["java39", "java41"])
def test_the_tool_for_groups(client, broker, topic, client_of):
    client_of(client)  # notes its version for the table
    confluent = client_of("confluent")
    tools = Tools(client.removeprefix("java"), broker)
    group = f"group-of-{topic}"
    confluent.create_topic(topic, 2, {})
    wait_for_leader(broker, topic, 2)
    for partition in range(2):
        confluent.produce(topic, partition, [Record(b"%d" % n) for n in range(10)], "none", 1_000_000)
    read = tools.run("console-consumer", "--topic", topic, "--group", group, "--from-beginning", "--max-messages", "20", "--timeout-ms", "20000")
    assert "Processed a total of 20 messages" in read, read

    assert group in tools.run("consumer-groups", "--list").split()
    assert lags(tools, group, topic) == {0: (10, 10, 0), 1: (10, 10, 0)}
    assert re.search(rf"{group}\s.*\sEmpty\s+0", tools.run("consumer-groups", "--describe", "--group", group, "--state"))

    reset = ["consumer-groups", "--reset-offsets", "--group", group, "--topic", topic]
    planned = tools.run(*reset, "--to-offset", "4", "--dry-run")
    assert re.search(rf"{group}\s+{topic}\s+0\s+4", planned), planned
    assert lags(tools, group, topic)[0] == (10, 10, 0), "a dry run changes nothing"
    tools.run(*reset, "--to-offset", "4", "--execute")
    assert lags(tools, group, topic) == {0: (4, 10, 6), 1: (4, 10, 6)}
    tools.run(*reset, "--to-latest", "--execute")

    # With its last offset a group without members would be gone, as in Kafka.
    tools.run("consumer-groups", "--delete-offsets", "--group", group, "--topic", f"{topic}:0")
    assert lags(tools, group, topic) == {1: (10, 10, 0)}
    assert "Deletion of requested consumer groups" in tools.run("consumer-groups", "--delete", "--group", group)
    assert group not in tools.run("consumer-groups", "--list").split()


def lags(tools, group, topic):
    """Committed offset, log end offset and lag by partition."""
    described = tools.run("consumer-groups", "--describe", "--group", group)
    rows = re.findall(rf"{group}\s+{topic}\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+)", described)
    return {int(partition): (int(at), int(end), int(lag)) for partition, at, end, lag in rows}
