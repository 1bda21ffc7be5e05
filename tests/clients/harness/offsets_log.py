"""`__consumer_offsets` as the coordinator wrote it: every generation of a group, what each member of the new protocol has, and every
commit, in their order.

The records have Kafka's schemas, so this is what any other tool would read too.
"""

from dataclasses import dataclass

from .raw import Reader


@dataclass
class Commit:
    topic: str
    partition: int
    offset: int
    at_ms: int


@dataclass
class Generation:
    """A group as it was stored. `owners` are the members of each partition; more than one would be a fault."""

    number: int
    protocol: str | None
    # Client id by member id.
    members: dict[str, str]
    owners: dict[tuple[str, int], list[str]]


@dataclass
class Profile:
    """A member of the new protocol (KIP-848): who it is."""

    member: str
    client: str


@dataclass
class Holding:
    """What a member of the new protocol has from here on, and what of it it is to give up; no epoch: it is gone."""

    member: str
    epoch: int | None
    assigned: list[tuple[bytes, int]]
    revoking: list[tuple[bytes, int]]

    @property
    def partitions(self):
        return {*self.assigned, *self.revoking}


def read(consume, partition, group):
    """What the log says of a group; `consume(topic, partition)` gives all its records."""
    entries = []
    for record in consume("__consumer_offsets", partition):
        key = Reader(record.key)
        version = key.i16()
        if key.string() != group:
            continue
        if version == 8:
            entries.append(_holding(key.string(), record.value))
        elif record.value is None:
            continue
        elif version in (0, 1):
            entries.append(_commit(key.string(), key.i32(), Reader(record.value)))
        elif version == 2:
            entries.append(_generation(Reader(record.value)))
        elif version == 5:
            entries.append(_profile(key.string(), Reader(record.value)))
    return entries


def _commit(topic, partition, value):
    version = value.i16()
    assert version in (1, 2, 3), version
    offset = value.i64()
    if version == 3:
        value.i32()  # leader epoch
    value.string()  # metadata
    return Commit(topic, partition, offset, value.i64())


def _generation(value):
    version = value.i16()
    assert version == 3, version
    value.string()  # protocol type
    number, protocol, _leader, _since = value.i32(), value.string(), value.string(), value.i64()
    members, owners = {}, {}
    for _ in range(value.i32()):
        member, _instance, client, _host = value.string(), value.string(), value.string(), value.string()
        value.i32()  # rebalance timeout
        value.i32()  # session timeout
        value.bytes(value.i32())  # subscription
        members[member] = client
        assignment = value.bytes(value.i32())
        for of in _partitions(Reader(assignment)) if assignment else []:
            owners.setdefault(of, []).append(member)
    return Generation(number, protocol, members, owners)


def _profile(member, value):
    assert value.i16() == 0
    _instance, _rack = value.compact_string(), value.compact_string()
    return Profile(member, value.compact_string())


def _holding(member, value):
    if value is None:
        return Holding(member, None, [], [])
    value = Reader(value)
    assert value.i16() == 0
    epoch, _previous, _state = value.i32(), value.i32(), value.i8()
    return Holding(member, epoch, list(_of_topics(value)), list(_of_topics(value)))


def _of_topics(value):
    for _ in range(value.compact_length()):
        topic = value.bytes(16)
        for _ in range(value.compact_length()):
            yield topic, value.i32()
        assert value.uvarint() == 0, "tags"


def _partitions(assignment):
    assignment.i16()  # version
    for _ in range(assignment.i32()):
        topic = assignment.string()
        for _ in range(assignment.i32()):
            yield topic, assignment.i32()
