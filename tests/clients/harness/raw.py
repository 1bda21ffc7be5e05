"""The few requests that the harness itself speaks, with no client library between it and the broker's bytes:
readiness, who leads a partition, and the record batches exactly as they are stored."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]


@dataclass
class Batch:
    """Header of one stored record batch (KIP-98, magic 2)."""

    base_offset: int
    size: int
    magic: int
    codec: str
    log_append_time: bool
    last_offset: int
    count: int


@dataclass
class Topic:
    error: int
    leaders: dict[int, int]
    errors: dict[int, int]


def can_connect(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


def answers(port: int) -> bool:
    """Does the broker answer Metadata with at least one broker?"""
    try:
        brokers, _ = metadata(port, [])
        return bool(brokers)
    except (OSError, EOFError):
        return False


def exists(port: int, topic: str) -> bool:
    """Is the topic listed? Asks for all topics, as asking for one by name may create it."""
    return topic in metadata(port, None)[1]


def metadata(port: int, topics: list[str] | None) -> tuple[dict[int, tuple[str, int]], dict[str, Topic]]:
    """Metadata v1: brokers by node id, and the named topics (None: all)."""
    body = struct.pack(">i", -1 if topics is None else len(topics))
    body += b"".join(_string(topic) for topic in topics or [])
    reader = _call(("127.0.0.1", port), 3, 1, body)
    brokers = {}
    for _ in range(reader.i32()):
        node, host, broker_port, _rack = reader.i32(), reader.string(), reader.i32(), reader.string()
        brokers[node] = (host, broker_port)
    reader.i32()  # controller id
    found = {}
    for _ in range(reader.i32()):
        error, name, _internal = reader.i16(), reader.string(), reader.i8()
        topic = Topic(error, {}, {})
        for _ in range(reader.i32()):
            code, partition, leader = reader.i16(), reader.i32(), reader.i32()
            reader.skip(4 * reader.i32())  # replicas
            reader.skip(4 * reader.i32())  # in-sync replicas
            topic.leaders[partition], topic.errors[partition] = leader, code
        found[name] = topic
    return brokers, found


def batches(port: int, topic: str, partition: int) -> list[Batch]:
    """Every record batch of a partition as stored, by Fetch v4 from the leader."""
    brokers, topics = metadata(port, [topic])
    leader = brokers[topics[topic].leaders[partition]]
    found: list[Batch] = []
    offset = 0
    while True:
        high_watermark, records = _fetch(leader, topic, partition, offset)
        found += [batch for batch in _headers(records) if batch.last_offset >= offset]
        if found:
            offset = found[-1].last_offset + 1
        if offset >= high_watermark:
            return found
        assert records, f"fetch of {topic}-{partition} from {offset} is empty below the high watermark {high_watermark}"


def coordinator(port: int, group: str) -> tuple[str, int]:
    """The broker that has a group, by FindCoordinator v0."""
    reader = _call(("127.0.0.1", port), 10, 0, _string(group))
    error, _node, host, at = reader.i16(), reader.i32(), reader.string(), reader.i32()
    assert error == 0, f"coordinator of {group}: error {error}"
    return host, at


def commit(port: int, group: str, generation: int, member: str, topic: str, partition: int, offset: int) -> int:
    """OffsetCommit v2 in somebody's name; returns the error code."""
    body = _string(group) + struct.pack(">i", generation) + _string(member) + struct.pack(">qi", -1, 1) + _string(topic)
    body += struct.pack(">iiq", 1, partition, offset) + _string("")
    reader = _call(coordinator(port, group), 8, 2, body)
    assert reader.i32() == 1 and reader.string() == topic and reader.i32() == 1 and reader.i32() == partition
    return reader.i16()


def commit_by_epoch(port: int, group: str, epoch: int, member: str, topic: str, partition: int, offset: int) -> int:
    """OffsetCommit v9, the first that members of the new protocol may use, in somebody's name; returns the error code."""
    body = _compact(group) + struct.pack(">i", epoch) + _compact(member) + b"\0" + b"\x02" + _compact(topic)
    body += b"\x02" + struct.pack(">iqi", partition, offset, -1) + _compact("") + b"\0" + b"\0" + b"\0"
    reader = _call(coordinator(port, group), 8, 9, body, flexible=True)
    reader.i32()  # throttle time
    assert reader.compact_length() == 1 and reader.compact_string() == topic and reader.compact_length() == 1 and reader.i32() == partition
    return reader.i16()


def _fetch(leader: tuple[str, int], topic: str, partition: int, offset: int) -> tuple[int, bytes]:
    body = struct.pack(">iiiibi", -1, 500, 1, 50_000_000, 0, 1) + _string(topic)
    body += struct.pack(">iiqi", 1, partition, offset, 40_000_000)
    reader = _call(leader, 1, 4, body)
    reader.i32()  # throttle time
    assert reader.i32() == 1
    reader.string()
    assert reader.i32() == 1
    _partition, error, high_watermark, _stable = reader.i32(), reader.i16(), reader.i64(), reader.i64()
    assert error == 0, f"fetch of {topic}-{partition} from {offset}: error {error}"
    for _ in range(max(reader.i32(), 0)):
        reader.skip(16)
    return high_watermark, reader.bytes(reader.i32())


def _headers(records: bytes) -> list[Batch]:
    found, at = [], 0
    while at + 61 <= len(records):
        base, length = struct.unpack_from(">qi", records, at)
        if at + 12 + length > len(records):
            break  # a fetch may end inside a batch
        magic = records[at + 16]
        attributes, last_delta = struct.unpack_from(">hi", records, at + 21)
        (count,) = struct.unpack_from(">i", records, at + 57)
        found.append(Batch(base, 12 + length, magic, CODECS[attributes & 7], bool(attributes & 8), base + last_delta, count))
        at += 12 + length
    return found


def _call(address: tuple[str, int], key: int, version: int, body: bytes, flexible: bool = False) -> "Reader":
    tags = b"\0" if flexible else b""
    request = struct.pack(">hhi", key, version, 7) + _string("harness") + tags + body
    with socket.create_connection(address, 10) as sock:
        sock.sendall(struct.pack(">i", len(request)) + request)
        (size,) = struct.unpack(">i", _exactly(sock, 4))
        reader = Reader(_exactly(sock, size))
    assert reader.i32() == 7, "correlation id"
    assert not flexible or reader.uvarint() == 0, "tags"
    return reader


def _exactly(sock: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = sock.recv(min(size - len(parts), 1 << 20))
        if not part:
            raise EOFError("the broker closed the connection")
        parts += part
    return bytes(parts)


def _string(text: str) -> bytes:
    return struct.pack(">h", len(text)) + text.encode()


def _compact(text: str) -> bytes:
    assert len(text) < 127
    return bytes([len(text) + 1]) + text.encode()


class Reader:
    def __init__(self, data: bytes):
        self.data, self.at = data, 0

    def bytes(self, size: int) -> bytes:
        size = max(size, 0)
        part = self.data[self.at : self.at + size]
        if len(part) != size:
            raise EOFError("answer is too short")
        self.at += size
        return part

    def skip(self, size: int) -> None:
        self.bytes(size)

    def _number(self, form: str, size: int) -> int:
        return struct.unpack(form, self.bytes(size))[0]

    def i8(self) -> int:
        return self._number(">b", 1)

    def i16(self) -> int:
        return self._number(">h", 2)

    def i32(self) -> int:
        return self._number(">i", 4)

    def i64(self) -> int:
        return self._number(">q", 8)

    def string(self) -> str | None:
        size = self.i16()
        return None if size < 0 else self.bytes(size).decode()

    def uvarint(self) -> int:
        number, shift = 0, 0
        while True:
            byte = self.bytes(1)[0]
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return number

    def compact_length(self) -> int:
        """Of a list or string in its compact form; -1 for null."""
        return self.uvarint() - 1

    def compact_string(self) -> str | None:
        size = self.compact_length()
        return None if size < 0 else self.bytes(size).decode()
