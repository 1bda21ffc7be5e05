"""Consumer groups: members of different clients share a topic, leave, die, hang and come back, and so does the broker."""

import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from confluent_kafka import Consumer

from harness import offsets_log, raw
from harness.members import (OFFSETS_PARTITIONS, PARTITIONS, Process, assert_commits_only_advance, assert_contents,
                             assert_read_again_from_the_last_commit, ends, fill, log_of, progress)
from harness.records import Record
from harness.tools import Tools
from harness.wait import wait_for_coordinator, wait_for_leader, wait_until

pytestmark = pytest.mark.timeout(200)
UNKNOWN_MEMBER_ID, ILLEGAL_GENERATION = 25, 22

# Which clients have an assignor, each assignor a group of its own. kafkajs has roundrobin when it is called so; `corelog consume` offers
# range and roundrobin; librdkafka has no sticky, aiokafka no cooperative one.
GROUPS = {
    "range": ["confluent", "kafkapython", "aio", "java39", "java41", "corelog"],
    "roundrobin": ["confluent", "kafkapython", "aio", "java39", "java41", "kafkajs"],
    "sticky": ["kafkapython", "aio", "java39", "java41"],
    "cooperative-sticky": ["confluent", "kafkapython", "java39", "java41"],
}
# Each group has one who leaves, one who dies and one who hangs.
LEAVE, DIES, HANGS = ("aio", "confluent"), "kafkapython", "java39"
assert all({DIES, HANGS} <= set(of) and any(client in of for client in LEAVE) for of in GROUPS.values())


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


def share(processes, total):
    """Of the group that is least far, how much of all records was processed."""
    return min(sum(progress(processes, group)) for group in GROUPS) / total


def test_members_of_every_client_share_each_assignor(own_broker, connect, start):
    broker = own_broker({"group.initial.rebalance.delay.ms": "1000", "offsets.topic.num.partitions": str(OFFSETS_PARTITIONS), "log.retention.ms": "-1"})
    admin = connect("confluent", broker)
    admin.create_topic("events", PARTITIONS, {})
    wait_for_leader(broker, "events", PARTITIONS)
    clients = dict.fromkeys(client for members in GROUPS.values() for client in members)
    members = {client: start(client, broker, "events") for client in clients}
    processes = list(members.values())
    wait_for_leader(broker, "__consumer_offsets", OFFSETS_PARTITIONS)
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
    for client in LEAVE:
        members[client].end()
    reach(0.25)
    members[DIES].signal(signal.SIGKILL)
    for client in (DIES, "confluent"):
        processes.append(start(client, broker, "events"))
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
        assert_commits_only_advance(processes, group, entries)
        assert_contents(processes, group, values)
        assert_read_again_from_the_last_commit(processes, group, entries)


def clients_with_partitions(client, broker, group):
    """Of the newest generation, when all partitions have owners; who joins late or gives partitions away is not counted on."""
    generations = [entry for entry in log_of(client, broker, group) if isinstance(entry, offsets_log.Generation)]
    if not generations or len(generations[-1].owners) < PARTITIONS:
        return set()
    newest = generations[-1]
    return {newest.members[member] for owners in newest.owners.values() for member in owners}


def current(client, broker, group):
    return [entry for entry in log_of(client, broker, group) if isinstance(entry, offsets_log.Generation)][-1]


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


def side_by_side(calls):
    """What each call gives; each waits for a JVM of its own."""
    with ThreadPoolExecutor(3) as pool:
        return [done.result() for done in [pool.submit(call) for call in calls]]


@pytest.mark.parametrize("client", ["java39", "java41"])
def test_the_tool_resets_offsets_every_way(client, own_broker, connect, tmp_path):
    broker = own_broker()
    confluent = connect("confluent", broker)
    tools = Tools(client.removeprefix("java"), broker)
    confluent.create_topic("t", 2, {})
    wait_for_leader(broker, "t", 2)
    # Six an hour each from 2021 on, then four of now; in the other partition of now alone.
    hour, begin, now = 3_600_000, 1_609_459_200_000, time.time_ns() // 1_000_000
    old = [Record(b"%d" % n, timestamp=begin + n * hour) for n in range(6)]
    new = [Record(b"%d" % n, timestamp=now + n) for n in range(10)]
    confluent.produce("t", 0, old + new[:4], "none", 1_000_000)
    confluent.produce("t", 1, new, "none", 1_000_000)
    (tmp_path / "plan.csv").write_text("t,0,2\nt,1,9\n")
    ways = {
        "earliest": (["--to-earliest"], (0, 0)),
        "latest": (["--to-latest"], (10, 10)),
        "shift": (["--shift-by", "-3"], (2, 4)),
        "far": (["--shift-by", "100"], (10, 10)),
        "duration": (["--by-duration", "P1D"], (6, 0)),
        "datetime": (["--to-datetime", "2021-01-01T03:00:00.000+00:00"], (3, 0)),
        "current": (["--to-current"], (5, 7)),
        "file": (["--from-file", str(tmp_path / "plan.csv")], (2, 9)),
    }
    for group in [*ways, "untouched"]:
        wait_for_coordinator(broker, group)
        for partition, offset in enumerate((5, 7)):
            wait_until(lambda: raw.commit(broker.port, group, -1, "", "t", partition, offset) == 0, f"no commit for {group}")

    def reset(group, how):
        topic = [] if group == "file" else ["--topic", "t"]
        return tools.run("consumer-groups", "--reset-offsets", "--group", group, *topic, *how, "--execute")

    told = side_by_side([lambda group=group, how=how: reset(group, how) for group, (how, _) in ways.items()])
    for (group, (_, expected)), said in zip(ways.items(), told):
        assert set(re.findall(rf"\b{group}\s+t\s+(\d+)\s+(\d+)", said)) == {("0", str(expected[0])), ("1", str(expected[1]))}, said
    assert committed(tools) == {group: expected for group, (_, expected) in ways.items()} | {"untouched": (5, 7)}

    export, every = side_by_side([
        lambda: tools.run("consumer-groups", "--reset-offsets", "--group", "shift", "--topic", "t:0", "--to-offset", "1", "--export", "--dry-run"),
        lambda: tools.run("consumer-groups", "--reset-offsets", "--all-groups", "--topic", "t:1", "--to-offset", "8", "--execute")])
    assert re.search(r'^"?t"?,0,1$', export, re.M), export
    assert all(re.search(rf"\b{group}\s+t\s+1\s+8\b", every) for group in ways), every
    assert committed(tools) == {group: (expected[0], 8) for group, (_, expected) in ways.items()} | {"untouched": (5, 8)}


def committed(tools):
    """Of each group, what the tool says of the two partitions of `t`."""
    described = tools.run("consumer-groups", "--describe", "--all-groups")
    rows = re.findall(r"^(\S+)\s+t\s+(\d+)\s+(\d+)\s", described, re.M)
    return {group: tuple(int(at) for of, _, at in sorted(rows) if of == group) for group, _, _ in rows}


@pytest.mark.parametrize("client", ["java39", "java41"])
def test_the_tool_shows_members(client, broker, topic, client_of):
    tools = Tools(client.removeprefix("java"), broker)
    group = f"group-of-{topic}"
    client_of("confluent").create_topic(topic, 3, {})
    wait_for_leader(broker, topic, 3)
    member = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": group, "client.id": "shown", "group.instance.id": "one",
                       "partition.assignment.strategy": "roundrobin"})
    member.subscribe([topic])
    try:
        wait_until(lambda: member.poll(0.1) is None and len(member.assignment()) == 3, "the member gets no partitions")
        who, state, refused = side_by_side([
            lambda: tools.run("consumer-groups", "--describe", "--group", group, "--members", "--verbose"),
            lambda: tools.run("consumer-groups", "--describe", "--group", group, "--state"),
            lambda: tools.run("consumer-groups", "--reset-offsets", "--group", group, "--topic", topic, "--to-earliest", "--execute", check=False)])
        # The tool of 3.9 leaves the topic's name out.
        assert re.search(rf"^{group}\s+one-\S+\s+one\s+/127.0.0.1\s+shown\s+3\s.*(\s\(0,1,2\)|{topic}:0,1,2)", who, re.M), who
        assert re.search(rf"^{group}\s.*\sroundrobin\s+Stable\s+1", state, re.M), state
        assert "inactive" in refused, refused
    finally:
        member.close()


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
