"""Consumer groups: members of different clients share a topic, die, hang and come back, and so does the broker."""

import json
import re
import signal
import subprocess
import sys
import threading

import pytest

from harness.paths import CLIENTS
from harness.records import Record
from harness.tools import Tools
from harness.wait import wait_for_leader, wait_until

pytestmark = pytest.mark.timeout(150)
PARTITIONS = 6
RECORDS = 150


class Member:
    """A process of groups/member.py; everything it told, in order."""

    def __init__(self, client, broker, group, topic, assignor):
        command = [sys.executable, str(CLIENTS / "groups" / "member.py"), client, broker.bootstrap, group, topic, assignor]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
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

    def signal(self, number):
        self.process.send_signal(number)

    def end(self):
        self.process.stdin.close()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.reader.join()


@pytest.fixture
def join(request):
    """A factory of members; whoever is left in the end is ended."""
    members = []

    def start(*arguments):
        members.append(Member(*arguments))
        return members[-1]

    yield start
    for member in members:
        # A stopped one must be able to end.
        if member.process.poll() is None:
            member.signal(signal.SIGCONT)
        member.end()


def told(members):
    return sorted(line for member in list(members) for line in list(member.told))


def processed(members):
    return {(partition, offset) for _, what, partition, offset in told(members) if what == "processed"}


def assert_at_least_once(members):
    """Nothing is left out, and what is processed again lies behind the last commit."""
    done = {partition: 0 for partition in range(PARTITIONS)}
    committed = dict(done)
    owner = {}
    lines = sorted((line, number) for number, member in enumerate(members) for line in member.told)
    for (_, what, partition, offset), number in lines:
        if what == "committed":
            committed[partition] = max(committed[partition], offset)
            continue
        if offset != done[partition]:
            # Somebody begins anew: not before what is committed, and not behind what was processed.
            assert committed[partition] <= offset <= done[partition], \
                f"partition {partition}: {offset} after {done[partition]}, committed {committed[partition]} (was {owner.get(partition)}, is {number})"
        done[partition] = max(done[partition], offset + 1)
        owner[partition] = number
    assert all(count == RECORDS for count in done.values()), done


@pytest.mark.parametrize("assignor", ["range", "roundrobin"])
def test_members_of_three_clients_die_and_the_broker_too(assignor, own_broker, connect, join):
    broker = own_broker({"group.initial.rebalance.delay.ms": "500"})
    admin = connect("confluent", broker)
    admin.create_topic("work", PARTITIONS, {})
    wait_for_leader(broker, "work", PARTITIONS)
    for partition in range(PARTITIONS):
        admin.produce("work", partition, [Record(b"%d" % n) for n in range(RECORDS)], "none", 1_000_000)
    clients = ["confluent", "kafkapython", "aio"]
    members = [join(client, broker, "workers", "work", assignor) for client in clients]
    wait_until(lambda: all(member.told for member in members), lambda: f"not all work: {[len(m.told) for m in members]}", 30)

    victim = 0 if assignor == "range" else 1
    members[victim].signal(signal.SIGKILL)
    if assignor == "range":
        wait_until(lambda: len(processed(members)) > PARTITIONS * RECORDS // 3, "work stands still", 30)
        broker.kill()
        broker.start()
    else:
        # Hung beyond its session: whoever has its partitions then fences it.
        members[2].signal(signal.SIGSTOP)
        wait_until(lambda: len(processed(members)) > PARTITIONS * RECORDS // 3 or members[0].process.poll() is not None, "work stands still", 40)
        members[2].signal(signal.SIGCONT)
    members.append(join(clients[victim], broker, "workers", "work", assignor))
    wait_until(lambda: len(processed(members)) == PARTITIONS * RECORDS, lambda: f"{len(processed(members))} records were processed", 60)
    for member in members:
        if member.process.poll() is None:
            member.end()
    assert_at_least_once(members)


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
