"""The limit, not a broker: `bench/floor` takes and gives bytes by the same system calls and does nothing else. What Corelog reaches of it is the
fraction of what this machine can do. It keeps nothing that could be read back, and knows only what producing and fetching need."""

import os
import subprocess

import harness

BINARY = os.path.join(harness.ROOT, "target/release/examples/floor")


class Peer(harness.Target):
    NAME = "the floor"
    PAGE_CACHE = "in the page cache, unchecked"
    ON_DISK = "on disk, unchecked, one write for all"
    DURABLE_TOPIC = {}
    KINDS = {"produce", "fetch"}
    IS_BROKER = False

    def __init__(self, home):
        self.home = home
        self.threads = int(os.environ.get("CORELOG_SHARDS", os.cpu_count() or 1))
        self.port = harness.free_ports(self.threads)
        self.process = None

    @classmethod
    def install(cls):
        if not os.path.exists(BINARY):
            subprocess.run(["cargo", "build", "--release", "--locked", "--example", "floor"], cwd=harness.ROOT, check=True)

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    @property
    def pids(self):
        return [self.process.pid]

    def start(self):
        path = os.path.join(self.home, "floor.log")
        with open(path, "ab") as log:
            command = [BINARY, str(self.port), str(self.threads), self.home]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        harness.wait_for(self.process, lambda: harness.can_connect(self.port), path)

    def stop(self, kill=False):
        harness.end(self.process, kill)
