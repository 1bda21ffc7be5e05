"""The real input: 101,229 activity events of one community's wiki, 2011 to 2024, one JSON object a line."""

import gzip
import json
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

from .paths import DATA
from .records import Record

EVENTS = 101_229
PARTITIONS = 8


@dataclass
class Event:
    user: str
    timestamp: int
    line: bytes


def load() -> list[Event]:
    with gzip.open(DATA / "activity.jsonl.gz", "rb") as lines:
        events = []
        for line in lines:
            line = line.rstrip(b"\n")
            fields = json.loads(line)
            events.append(Event(str(fields["user"]), fields["ts"], line))
    assert len(events) == EVENTS
    return events


def write_keyed(events: list[Event], path: Path) -> None:
    """As lines `key TAB timestamp TAB value`, which every adapter's produce_file reads."""
    with open(path, "wb") as out:
        for event in events:
            out.write(b"%s\t%d\t%s\n" % (event.user.encode(), event.timestamp, event.line))


def assert_complete(events: list[Event], partitions: dict[int, list[Record]], timestamps: bool) -> None:
    """Nothing lost, doubled, changed or moved: the same multiset of bytes, every user's sequence identical and in one
    partition, offsets dense."""
    records = [record for read in partitions.values() for record in read]
    assert Counter(record.value for record in records) == Counter(event.line for event in events)
    for partition, read in partitions.items():
        assert [record.offset for record in read] == list(range(len(read))), f"offsets of partition {partition}"

    sent, got, homes = defaultdict(list), defaultdict(list), defaultdict(set)
    for event in events:
        sent[event.user].append((event.line, event.timestamp if timestamps else None))
    for partition, read in partitions.items():
        for record in read:
            user = record.key.decode()
            got[user].append((record.value, record.timestamp if timestamps else None))
            homes[user].add(partition)
    assert all(len(where) == 1 for where in homes.values()), "a user's events are spread over partitions"
    different = [user for user in sent if sent[user] != got[user]]
    assert not different, f"{len(different)} users' sequences differ, first {different[:3]}"


def placement(partitions: dict[int, list[Record]]) -> dict[str, int]:
    """Partition of every user."""
    return {record.key.decode(): partition for partition, read in partitions.items() for record in read}
