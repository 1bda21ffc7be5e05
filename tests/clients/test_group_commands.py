"""`corelog group` and `corelog consume --group`: what an operator does with consumer groups, against any broker."""

import json
import signal
import subprocess

import confluent_kafka
import pytest
from confluent_kafka import TopicPartition

from harness import raw
from harness.broker import KIND
from harness.paths import CORELOG
from harness.records import Record
from harness.wait import create_again, wait_for_leader, wait_until

PARTITIONS = 4
EACH = 25


def corelog(broker, *arguments, code=0, said=None):
    """Runs a command; what it printed, as JSON where it was asked for. What it told beside that is added to `said`."""
    done = subprocess.run([CORELOG, *arguments, "-b", broker.bootstrap], capture_output=True, timeout=60, text=True)
    assert done.returncode == code, f"{arguments} ended with {done.returncode}: {done.stdout}{done.stderr}"
    if code:
        return done.stderr
    if said is not None:
        said.append(done.stderr)
    return json.loads(done.stdout) if "--json" in arguments else done.stdout


def offsets(broker, group):
    described = corelog(broker, "group", "describe", group, "--json")[0]
    return {row["partition"]: (row["committed"], row["end"], row["lag"]) for row in described["offsets"]}


class Consumer:
    """A `corelog consume --group` that prints partition and offset of each record."""

    def __init__(self, broker, topic, group, *arguments):
        command = [CORELOG, "consume", topic, "--group", group, "-b", broker.bootstrap, "-f", "%p %o\\n", *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def end(self, number=signal.SIGINT):
        """Ends it; its exit code and what it had printed."""
        self.process.send_signal(number)
        printed, _ = self.process.communicate(timeout=20)
        return self.process.returncode, [tuple(map(int, line.split())) for line in printed.splitlines()]


def joins(broker, topic, group, settings):
    """A member that commits nothing by itself."""
    member = confluent_kafka.Consumer({"bootstrap.servers": broker.bootstrap, "group.id": group, "enable.auto.commit": False, **settings})
    member.subscribe([topic])
    return member


def filled(broker, client_of, topic):
    confluent = client_of("confluent")
    confluent.create_topic(topic, PARTITIONS, {})
    wait_for_leader(broker, topic, PARTITIONS)
    fill(confluent, topic)
    return confluent


def fill(client, topic):
    for partition in range(PARTITIONS):
        client.produce(topic, partition, [Record(b"%d" % n) for n in range(EACH)], "none", 1_000_000)


def test_offsets_are_shown_reset_and_deleted(broker, client_of, topic, tmp_path):
    filled(broker, client_of, topic)
    group = f"group-of-{topic}"
    read = corelog(broker, "consume", topic, "--group", group, "--exit-at-end", "-f", "%p %o\\n")
    assert len(set(read.splitlines())) == PARTITIONS * EACH
    assert offsets(broker, group) == {p: (EACH, EACH, 0) for p in range(PARTITIONS)}
    listed = {row["group"]: row for row in corelog(broker, "group", "list", "--state", "empty", "--json")}
    assert listed[group]["type"] == "classic" and listed[group]["protocol_type"] == "consumer"
    assert group not in [row["group"] for row in corelog(broker, "group", "list", "--state", "stable", "--json")]

    reset = ["group", "reset-offsets", group, "--topic", f"{topic}:0,2"]
    planned = corelog(broker, *reset, "--to-offset", "5", "--json")
    assert [(row["partition"], row["committed"], row["new"], row["executed"]) for row in planned] == [(0, EACH, 5, False), (2, EACH, 5, False)]
    assert offsets(broker, group)[0] == (EACH, EACH, 0), "a plan changes nothing"
    corelog(broker, *reset, "--to-offset", "5", "--execute")
    assert offsets(broker, group) == {0: (5, EACH, EACH - 5), 1: (EACH, EACH, 0), 2: (5, EACH, EACH - 5), 3: (EACH, EACH, 0)}
    for how, new in [(["--shift-by", "-2"], 3), (["--shift-by", "-9"], 0), (["--to-offset", "99"], EACH), (["--to-earliest"], 0),
                     (["--to-latest"], EACH), (["--to-current"], 5), (["--by-duration", "1h"], 0), (["--to-time", "now"], EACH)]:
        assert [row["new"] for row in corelog(broker, *reset, *how, "--json")] == [new, new], how

    plan = tmp_path / "plan.csv"
    plan.write_text(corelog(broker, "group", "reset-offsets", group, "--all-topics", "--to-current", "--export"))
    corelog(broker, "group", "reset-offsets", group, "--all-topics", "--to-latest", "--execute")
    corelog(broker, "group", "reset-offsets", group, "--from-file", str(plan), "--execute")
    assert offsets(broker, group)[2] == (5, EACH, EACH - 5), "as the plan has it"
    read = corelog(broker, "consume", topic, "--group", group, "-e", "-f", "%p %o\\n")
    assert sorted(read.splitlines()) == sorted(f"{p} {o}" for p in (0, 2) for o in range(5, EACH)), "what was reset is read again"

    corelog(broker, "group", "delete-offsets", group, "--topic", f"{topic}:1")
    assert sorted(offsets(broker, group)) == [0, 2, 3]
    assert corelog(broker, "group", "delete", group) == f"deleted {group}\n"
    for command in ["describe", "delete"]:
        assert "GROUP_ID_NOT_FOUND" in corelog(broker, "group", command, group, code=1)
    assert corelog(broker, "group", "delete", group, "--if-exists", "--json") == [{"group": group, "deleted": False, "error": None}]


def test_offsets_go_with_their_topic(broker, client_of, topic):
    confluent = filled(broker, client_of, topic)
    consume = ["consume", topic, "--group", f"group-of-{topic}", "--exit-at-end", "-f", "%p %o\\n"]
    everything = {f"{p} {o}" for p in range(PARTITIONS) for o in range(EACH)}
    assert set(corelog(broker, *consume).splitlines()) == everything
    confluent.delete_topic(topic)
    wait_until(lambda: not raw.exists(broker.port, topic), "the topic is still listed")
    create_again(lambda: confluent.create_topic(topic, PARTITIONS, {}))
    wait_for_leader(broker, topic, PARTITIONS)
    fill(confluent, topic)
    assert set(corelog(broker, *consume).splitlines()) == everything, "the new topic's first records were skipped"


@pytest.mark.skipif(KIND != "corelog", reason="Kafka 3.9 appends the tombstones in one batch, and says that the group is deleted")
def test_a_group_with_more_offsets_than_one_batch_has_room_for_stays_deleted(own_broker, connect):
    broker, group, partitions = own_broker({"message.max.bytes": "1000"}), "large", 40
    connect("confluent", broker).create_topic("many", partitions, {})
    wait_for_leader(broker, "many", partitions)

    def commits(partition):
        try:
            return raw.commit(broker.port, group, -1, "", "many", partition, 7) == 0
        except AssertionError:  # __consumer_offsets is being made
            return False

    for partition in range(partitions):
        wait_until(lambda: commits(partition), "never committed")
    assert corelog(broker, "group", "delete", group) == f"deleted {group}\n"
    assert broker.terminate() == 0
    broker.start()
    assert "GROUP_ID_NOT_FOUND" in corelog(broker, "group", "describe", group, code=1)


def test_members_share_a_topic_and_commit_what_they_printed(broker, client_of, topic):
    client = filled(broker, client_of, topic)
    group = f"group-of-{topic}"
    read = corelog(broker, "consume", topic, "--group", group, "--max-records", "10", "-f", "%p %o\\n").splitlines()
    assert len(read) == 10 and sum(committed for committed, _, _ in offsets(broker, group).values()) == 10

    first, second = Consumer(broker, topic, group), Consumer(broker, topic, group)

    def shared():
        members = corelog(broker, "group", "describe", group, "--json")[0]["members"]
        return sorted(len(member["partitions"].get(topic, [])) for member in members) == [2, 2]

    wait_until(shared, "two members never had two partitions each", 30)
    assert "it is Stable; stop its 2 members first" in corelog(broker, "group", "reset-offsets", group, "--topic", topic, "--to-earliest", "--execute", code=1)
    refused = corelog(broker, "group", "delete", group, code=1)
    assert "NON_EMPTY_GROUP" in refused and f"`corelog group describe {group} --members`" in refused
    refused = corelog(broker, "group", "delete-offsets", group, "--topic", topic, code=1)
    assert refused.count("GROUP_SUBSCRIBED_TO_TOPIC") == 1 and f"{topic}:0,1,2,3" in refused, "told once, not once for each partition"
    wait_until(lambda: all(lag == 0 for _, _, lag in offsets(broker, group).values()), "what is printed is never committed", 20)
    code, from_first = first.end()
    assert code == 0, "Ctrl-C is no failure"
    # It has left: nobody waits for its session to end.
    wait_until(lambda: len(corelog(broker, "group", "describe", group, "--json")[0]["members"]) == 1, "it never left", 5)
    fill(client, topic)
    wait_until(lambda: all(committed == 2 * EACH for committed, _, _ in offsets(broker, group).values()), "the other one never took over", 30)
    code, from_second = second.end(signal.SIGTERM)
    assert code == 0
    everything = [tuple(map(int, line.split())) for line in read] + from_first + from_second
    assert sorted(set(everything)) == [(p, o) for p in range(PARTITIONS) for o in range(2 * EACH)]
    assert len(everything) == len(set(everything)), "nobody was killed, so nothing is printed twice"


NEW_PROTOCOL = pytest.param("consumer", marks=pytest.mark.skipif(KIND != "corelog", reason="Kafka takes such a member out from 4.0 on"))


@pytest.mark.parametrize("protocol", ["classic", NEW_PROTOCOL])
def test_a_static_member_has_no_lag_before_it_commits_and_can_be_removed_when_it_has_gone(broker, client_of, topic, protocol):
    filled(broker, client_of, topic)
    group, records = f"group-of-{topic}", PARTITIONS * EACH
    member = joins(broker, topic, group, {"group.instance.id": "worker-1", "group.protocol": protocol})
    try:
        def joined():
            member.poll(0.1)
            return len(member.assignment()) == PARTITIONS

        wait_until(joined, "it never got its partitions", 30)
        described = corelog(broker, "group", "describe", group, "--json")[0]
        assert described["type"] == protocol
        assert (described["lag"], described["uncommitted_partitions"], described["uncommitted_records"]) == (None, PARTITIONS, records)
        assert f"lag          -, {PARTITIONS} partitions without a commit ({records} records)" in corelog(broker, "group", "describe", group)
        assert f"({records} records)" in corelog(broker, "group", "describe", group, "--state")
        member.commit(offsets=[TopicPartition(topic, 0, 5)], asynchronous=False)
        described = corelog(broker, "group", "describe", group, "--json")[0]
        assert (described["lag"], described["uncommitted_partitions"]) == (EACH - 5, PARTITIONS - 1)
    finally:
        member.close()
    refused = corelog(broker, "group", "delete", group, code=1)
    assert "a static member (worker-1) stays after it has stopped" in refused
    assert f"corelog group remove-members {group} --instance worker-1" in refused
    removed = corelog(broker, "group", "remove-members", group, "--instance", "worker-1", "--json")
    assert removed == [{"instance": "worker-1", "removed": True, "error": None}]
    assert "UNKNOWN_MEMBER_ID" in corelog(broker, "group", "remove-members", group, "--instance", "worker-1", code=1)
    assert corelog(broker, "group", "describe", group, "--json")[0]["state"] == "Empty"
    assert corelog(broker, "group", "delete", group) == f"deleted {group}\n"


def test_a_reset_tells_its_time_what_it_makes_and_that_it_is_done(broker, client_of, topic):
    filled(broker, client_of, topic)
    group, said = f"group-of-{topic}", []
    reset = ["group", "reset-offsets", group, "--topic", topic]
    planned = corelog(broker, *reset, "--to-time", "2001-02-03T04:05:06", said=said)
    assert "at or after 2001-02-03T04:05:06.000Z (UTC)" in planned
    assert f"group {group} does not exist: --execute makes it" in said[-1] and "nothing is changed yet" in said[-1]
    assert corelog(broker, *reset, "--to-time", "2001-02-03", "--json")[0]["time"] == "2001-02-03T00:00:00.000Z"
    corelog(broker, *reset, "--to-earliest", "--execute", said=said)
    assert "this makes it" in said[-1] and f"done: {PARTITIONS} offsets set" in said[-1]
    assert "has no unit" in corelog(broker, *reset, "--by-duration", "2", "--execute", code=2)
    assert "looks like seconds" in corelog(broker, *reset, "--to-time", "1763788800", "--execute", code=2)
    assert offsets(broker, group) == {p: (0, EACH, EACH) for p in range(PARTITIONS)}
    unsure = subprocess.run([CORELOG, "group", "delete", "--all-groups", "--json", "-b", broker.bootstrap], capture_output=True, timeout=60, text=True)
    assert unsure.returncode == 1 and {"group": group, "deleted": False, "error": "--yes is missing"} in json.loads(unsure.stdout)


def test_what_cannot_be_meant_is_refused(broker, client_of, topic):
    filled(broker, client_of, topic)
    assert "--offset is earliest or latest" in corelog(broker, "consume", topic, "--group", "g", "-o", "7", code=2)
    assert "which partitions?" in corelog(broker, "group", "reset-offsets", "g", "--to-latest", code=2)
    assert "does not exist" in corelog(broker, "group", "reset-offsets", "nosuch", "--all-topics", "--to-earliest", "--execute", code=1)
    assert "UNKNOWN_TOPIC_OR_PARTITION" in corelog(broker, "group", "reset-offsets", "g", "--topic", f"{topic}:9", "--to-latest", code=1)
    assert "nothing is committed" in corelog(broker, "group", "reset-offsets", "g", "--topic", topic, "--shift-by", "1", code=1)
