"""Records as every adapter understands them, the cases that are sent, and the one strict comparison."""

from __future__ import annotations

import base64
import random
import time
from dataclasses import dataclass, field

# Of the topic setting max.message.bytes at its default: a batch of one record of 1,000,000 bytes fits.
LARGE = 1_000_000
TEN_MEBIBYTES = 10 * 1024 * 1024
# An hour ago: old enough to tell from the time of arrival, young enough for the default retention.
BASE_TIMESTAMP = (int(time.time()) - 3600) * 1000
# Bytes of a record batch before its first record (KIP-98).
BATCH_OVERHEAD = 61


@dataclass
class Record:
    value: bytes | None
    key: bytes | None = None
    headers: list[tuple[str, bytes | None]] = field(default_factory=list)
    timestamp: int | None = None
    offset: int | None = None

    def to_json(self) -> dict:
        return {
            "k": _encode(self.key),
            "v": _encode(self.value),
            "h": [[name, _encode(value)] for name, value in self.headers],
            "t": self.timestamp,
        }

    @staticmethod
    def from_json(data: dict) -> "Record":
        headers = [(name, _decode(value)) for name, value in data["h"]]
        return Record(_decode(data["v"]), _decode(data["k"]), headers, data["t"], data["o"])

    def __repr__(self) -> str:
        def short(data):
            return repr(data) if data is None or len(data) < 40 else f"<{len(data)} bytes {data[:12]!r}…>"

        return f"@{self.offset} t={self.timestamp} {short(self.key)}={short(self.value)} {self.headers}"


def cases(client) -> list[Record]:
    """Every shape of record that the client can send: keys and values null, empty, binary and large; headers none,
    repeated, empty, binary and null."""
    every_byte = bytes(range(256))
    binary = b"\x00\xff\xfe" if client.zero_in_headers else b"\x01\xff\xfe"
    records = [
        Record(b"plain value", b"plain key"),
        Record(b"a value without a key"),
        Record(b"empty key", b""),
        Record(None, b"null value: a tombstone"),
        Record(b"", b"empty value"),
        Record(every_byte, every_byte),
        Record("größer 中文 🦀".encode(), "schlüssel".encode()),
        Record(b"headers", b"h", [("one", b"1"), ("two", "zwei ü".encode()), ("one", b"again")]),
        Record(b"odd headers", b"h", [("empty", b""), ("binary", binary), ("größe", b"name in UTF-8")]),
        Record(text(LARGE, seed=1), b"large"),
        Record(b"after the large one", b"last"),
    ]
    if client.null_headers:
        records.append(Record(b"null header", b"h", [("nothing", None)]))
    for index, record in enumerate(records):
        if not client.ordered_headers:
            names = [name for name, _ in record.headers]
            record.headers.sort(key=lambda header: names.index(header[0]))
        record.timestamp = BASE_TIMESTAMP + 1000 * index
    return records


def text(size: int, seed: int) -> bytes:
    """Bytes that every codec makes smaller, but not absurdly so."""
    words = [b"shard ", b"segment ", b"offset ", b"leader ", b"epoch ", b"batch ", b"fetch ", b"produce "]
    rng = random.Random(seed)
    line = b"".join(rng.choice(words) for _ in range(4000)) + rng.randbytes(4000)
    return (line * (size // len(line) + 1))[:size]


def value_filling(batch_size: int, key: bytes) -> int:
    """Length of the value that makes a batch of one uncompressed record exactly `batch_size` bytes long."""
    for length in range(batch_size - BATCH_OVERHEAD - len(key) - 30, batch_size):
        body = 1 + 1 + 1 + _varint(len(key)) + len(key) + _varint(length) + length + 1
        if BATCH_OVERHEAD + _varint(body) + body == batch_size:
            return length
    raise ValueError(f"no value makes a batch of {batch_size} bytes")


def assert_same(sent: list[Record], got: list[Record], timestamps: bool = True) -> None:
    assert len(got) == len(sent), f"sent {len(sent)} records, got {len(got)}"
    for want, have in zip(sent, got):
        same = (want.key, want.value, want.headers) == (have.key, have.value, have.headers)
        assert same, f"sent {want}\n got {have}"
        if timestamps:
            assert want.timestamp == have.timestamp, f"sent {want}\n got {have}"


def _varint(value: int) -> int:
    zigzag = value << 1
    size = 1
    while zigzag > 0x7F:
        zigzag >>= 7
        size += 1
    return size


def _encode(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()


def _decode(data: str | None) -> bytes | None:
    return None if data is None else base64.b64decode(data)
