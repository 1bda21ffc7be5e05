"""Members of consumer groups as processes (groups/member.py and its likes), the events that they share, and what must be true of what they
told and of what the coordinator wrote."""

import bisect
import hashlib
import json
import signal
import subprocess
import sys
import threading
import time
import zlib

from . import activity, offsets_log, raw
from .paths import CACHE, CLIENTS, CORELOG, kafka_libs
from .records import Record

PARTITIONS = 8
OFFSETS_PARTITIONS = 4


class Process:
    """A client with its members of all groups that it can be in; everything it told, in order. A group has the name of its assignor, or is
    called `consumer` and of the new protocol."""

    def __init__(self, client, broker, topic, groups):
        self.client = client
        LOGS = CACHE / "logs"
        LOGS.mkdir(parents=True, exist_ok=True)
        self.errors = open(LOGS / f"member-{client}-of-{groups[0]}.log", "wb")
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


def log_of(client, broker, group):
    partition = partition_of(group, OFFSETS_PARTITIONS)

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


def ends(client, broker, group):
    last = dict.fromkeys(range(PARTITIONS), 0)
    last.update((entry.partition, entry.offset) for entry in log_of(client, broker, group) if isinstance(entry, offsets_log.Commit))
    return list(last.values())


def assert_commits_only_advance(processes, group, entries):
    def whose(commit):
        return [(process.client, *told) for process in processes for told in process.told
                if told[1] == group and told[3] == commit.partition and told[5] == commit.offset]

    last = [0] * PARTITIONS
    for entry in entries:
        if isinstance(entry, offsets_log.Commit):
            assert entry.offset >= last[entry.partition], \
                f"{group}: a commit of {entry} after {last[entry.partition]}: of a stale owner, {whose(entry)}"
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
