"""Boots the broker under test: Corelog, or Apache Kafka 3.9 as the reference that proves the tests themselves.

The environment variable BROKER chooses: `corelog` (default) or `kafka39`. Processes are ended by their own id only.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from . import raw
from .paths import CORELOG, kafka_libs

KIND = os.environ.get("BROKER", "corelog")
# Apache Kafka takes minutes to recover 10,000 partitions.
START_TIMEOUT_S = 60 if KIND == "corelog" else 300
STOP_TIMEOUT_S = 30
ZOOKEEPER_SESSION_S = 3


def free_ports(count: int) -> int:
    """First of `count` consecutive TCP ports that nobody listens on (Corelog takes one a shard)."""
    for _ in range(200):
        first = random.randrange(29092, 32000)
        sockets = []
        try:
            for port in range(first, first + count):
                sock = socket.socket()
                sockets.append(sock)
                sock.bind(("127.0.0.1", port))
            return first
        except OSError:
            continue
        finally:
            for sock in sockets:
                sock.close()
    raise RuntimeError(f"found no {count} consecutive free ports")


class Broker:
    """One broker process with its data directory. `start` waits until it answers, `kill` is kill -9."""

    def __init__(self, config: dict[str, str] | None = None, shards: int = 2, nofile: tuple[int, int] | None = None,
                 kind: str = KIND):
        self.kind = kind
        self.shards = shards
        self.config = dict(config or {})
        self.nofile = nofile
        self.dir = Path(tempfile.mkdtemp(prefix=f"{kind}-test-"))
        self.data = self.dir / "data"
        self.log = self.dir / "broker.log"
        self.port = free_ports(shards if kind == "corelog" else 2)
        self.process: subprocess.Popen | None = None
        self.zookeeper: subprocess.Popen | None = None

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self.process is not None, "the broker is not running"
        return self.process.pid

    def start(self) -> "Broker":
        if self.kind == "corelog":
            self.process = self._spawn(self._corelog_command(), self.log)
        else:
            if self.zookeeper is None:
                self.zookeeper = self._start_zookeeper()
            self.process = self._spawn(self._kafka_command(), self.log)
        self._wait_ready()
        return self

    def kill(self) -> None:
        """kill -9, as after a crash of the process. ZooKeeper, where there is one, stays."""
        self._end(self.process, signal.SIGKILL)
        self.process = None
        if self.zookeeper is not None:  # until it has forgotten the dead broker, it refuses a new one of that id
            time.sleep(ZOOKEEPER_SESSION_S + 2)

    def terminate(self) -> int:
        """SIGTERM and wait: a clean shutdown. Returns the exit code."""
        code = self._end(self.process, signal.SIGTERM)
        self.process = None
        return code

    def close(self) -> None:
        """Ends everything and removes the data, unless KEEP is set in the environment."""
        self._end(self.process, signal.SIGKILL)
        self._end(self.zookeeper, signal.SIGKILL)
        self.process = self.zookeeper = None
        if "KEEP" not in os.environ:
            shutil.rmtree(self.dir, ignore_errors=True)

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def log_tail(self, lines: int = 40) -> str:
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def partition_dirs(self, topic: str, partition: int) -> list[Path]:
        """Directories of a partition; found by name, as Corelog may keep a directory level a shard."""
        return sorted(path for path in self.data.rglob(f"{topic}-{partition}") if path.is_dir())

    def topic_dirs(self, topic: str) -> list[Path]:
        """All that is left on disk of a topic, directories renamed for deletion included."""
        # os.walk, unlike rglob, bears directories that vanish while it looks.
        return [Path(where, name) for where, names, _ in os.walk(self.data) for name in names if name.startswith(f"{topic}-")]

    # -- below: how each kind is run

    def _corelog_command(self) -> list[str]:
        settings = {"listeners": f"PLAINTEXT://127.0.0.1:{self.port}", "log.dirs": str(self.data), **self.config}
        command = [str(CORELOG), "serve", "--shards", str(self.shards)]
        for key, value in settings.items():
            command += ["--set", f"{key}={value}"]
        return command

    def _kafka_command(self) -> list[str]:
        settings = {
            "broker.id": "1",
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port}",
            "log.dirs": str(self.data),
            "zookeeper.connect": f"127.0.0.1:{self.port + 1}",
            "zookeeper.session.timeout.ms": str(1000 * ZOOKEEPER_SESSION_S),
            "offsets.topic.replication.factor": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            **self.config,
        }
        path = self.dir / "server.properties"
        path.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        return self._java("512m", "kafka.Kafka", str(path))

    def _start_zookeeper(self) -> subprocess.Popen:
        path = self.dir / "zoo.cfg"
        path.write_text(
            f"tickTime=1000\ndataDir={self.dir / 'zookeeper'}\nclientPort={self.port + 1}\n"
            "clientPortAddress=127.0.0.1\nadmin.enableServer=false\n"
        )
        process = self._spawn(
            self._java("128m", "org.apache.zookeeper.server.quorum.QuorumPeerMain", str(path)), self.dir / "zookeeper.log"
        )
        self._wait(lambda: raw.can_connect(self.port + 1), process)
        return process

    def _java(self, heap: str, main: str, *arguments: str) -> list[str]:
        log4j = self.dir / "log4j.properties"
        log4j.write_text(
            "log4j.rootLogger=WARN, stdout\nlog4j.appender.stdout=org.apache.log4j.ConsoleAppender\n"
            "log4j.appender.stdout.layout=org.apache.log4j.PatternLayout\n"
            "log4j.appender.stdout.layout.ConversionPattern=[%d] %p %m (%c)%n\n"
        )
        return ["java", f"-Xmx{heap}", f"-Dlog4j.configuration=file:{log4j}", "-XX:+UseG1GC", "-cp",
                f"{kafka_libs('39')}/*", main, *arguments]

    def _spawn(self, command: list[str], log: Path) -> subprocess.Popen:
        def limits() -> None:
            if self.nofile is not None:
                resource.setrlimit(resource.RLIMIT_NOFILE, self.nofile)

        with open(log, "ab") as out:
            return subprocess.Popen(command, cwd=self.dir, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                    preexec_fn=limits, start_new_session=True)

    def _wait_ready(self) -> None:
        self._wait(lambda: raw.answers(self.port), self.process)

    def _wait(self, ready, process: subprocess.Popen) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not ready():
            if process.poll() is not None:
                raise RuntimeError(f"{self.kind} ended with {process.returncode} while starting:\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.kind} was not ready after {START_TIMEOUT_S} s:\n{self.log_tail()}")
            time.sleep(0.05)

    @staticmethod
    def _end(process: subprocess.Popen | None, sig: int) -> int:
        if process is None:
            return 0
        if process.poll() is None:
            process.send_signal(sig)
        try:
            return process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise RuntimeError(f"process {process.pid} did not end within {STOP_TIMEOUT_S} s of signal {sig}")
