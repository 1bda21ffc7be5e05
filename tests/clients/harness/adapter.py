"""What the suites ask of a client. Each client under test has one adapter, in its own language: Python adapters are
classes, the others are processes that take one JSON request a line and answer with one JSON line."""

from __future__ import annotations

import json
import subprocess
import threading
from dataclasses import dataclass

from .records import Record

# Longest that one request to an adapter may take.
REQUEST_TIMEOUT_S = 90
MESSAGE_TOO_LARGE = 10


@dataclass
class Refused(Exception):
    """The broker refused; `code` is Kafka's error code."""

    code: int
    message: str


class Client:
    """One client under test against one broker."""

    name = "?"
    codecs = ["none", "gzip", "snappy", "lz4", "zstd"]
    # What the client cannot do, each with its reason in the adapter.
    consumes = True
    sets_timestamps = True
    null_headers = True
    zero_in_headers = True
    # Keeps the order of headers with different names; otherwise equal names come together.
    ordered_headers = True

    def __init__(self, bootstrap: str):
        self.bootstrap = bootstrap

    def version(self) -> str:
        raise NotImplementedError

    def create_topic(self, topic: str, partitions: int, config: dict[str, str]) -> None:
        raise NotImplementedError

    def delete_topic(self, topic: str) -> None:
        raise NotImplementedError

    def produce(self, topic: str, partition: int, records: list[Record], codec: str, max_bytes: int) -> list[int]:
        """Sends with acks=all and waits; returns the offsets, or raises Refused. max_bytes is the client's own limit."""
        raise NotImplementedError

    def consume(self, topic: str, partition: int, count: int, offset: int | None = None,
                timestamp: int | None = None) -> list[Record]:
        """Reads `count` records from an offset, or from the first one at or after a timestamp, by assignment."""
        raise NotImplementedError

    def produce_file(self, topic: str, path: str, codec: str) -> int:
        """Sends lines `key TAB timestamp TAB value` with the client's own partitioner; returns how many."""
        raise NotImplementedError

    def traffic_start(self, topic: str, partition: int) -> None:
        """Begins to produce about a hundred records a second and to consume them, surviving errors."""
        raise NotImplementedError

    def traffic_stop(self) -> dict:
        """Ends it. {"produced": [[ms, offset]…], "consumed": [[ms, offset, value]…], "errors": […]} by wall clock."""
        raise NotImplementedError

    def close(self) -> None:
        pass


class ProcessClient(Client):
    """A client behind a process that speaks JSON lines."""

    command: list[str] = []
    admin = True

    def __init__(self, bootstrap: str, log_path: str):
        super().__init__(bootstrap)
        self.log = open(log_path, "ab")
        self.process = subprocess.Popen([*self.command, bootstrap], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=self.log, start_new_session=True)

    def call(self, op: str, **arguments):
        timer = threading.Timer(REQUEST_TIMEOUT_S, self.process.kill)
        timer.start()
        try:
            self.process.stdin.write(json.dumps({"op": op, **arguments}).encode() + b"\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        finally:
            timer.cancel()
        if not line:
            raise RuntimeError(f"{self.name}'s adapter ended in {op} (over {REQUEST_TIMEOUT_S} s, or see its log)")
        answer = json.loads(line)
        if "error" in answer:
            raise Refused(answer["error"], answer.get("message", ""))
        return answer

    def version(self) -> str:
        return self.call("version")["version"]

    def create_topic(self, topic, partitions, config):
        self.call("create", topic=topic, partitions=partitions, config=config)

    def delete_topic(self, topic):
        self.call("delete", topic=topic)

    def produce(self, topic, partition, records, codec, max_bytes):
        return self.call("produce", topic=topic, partition=partition, codec=codec, max_bytes=max_bytes,
                         records=[record.to_json() for record in records])["offsets"]

    def consume(self, topic, partition, count, offset=None, timestamp=None):
        answer = self.call("consume", topic=topic, partition=partition, count=count, offset=offset, timestamp=timestamp)
        return [Record.from_json(record) for record in answer["records"]]

    def produce_file(self, topic, path, codec):
        return self.call("produce_file", topic=topic, path=path, codec=codec)["count"]

    def traffic_start(self, topic, partition):
        self.call("traffic_start", topic=topic, partition=partition)

    def traffic_stop(self):
        return self.call("traffic_stop")

    def close(self):
        if self.process.poll() is None:
            self.process.stdin.close()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.log.close()
