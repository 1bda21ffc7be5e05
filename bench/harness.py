"""What the measuring scripts of this folder share: a broker of their own, `corelog bench` against it, medians and ratios.

Runs are interleaved (A B A B ...), because a machine is never equally busy for long, and reported as medians with their range.
Only processes that a script started are stopped, by id; data lies in a directory of its own that is removed in the end.
"""

import io
import json
import os
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CORELOG = os.environ.get("CORELOG", os.path.join(ROOT, "target/release/corelog"))


def free_ports(count):
    """The first of `count` free ports in a row, below those that the system hands out by itself."""
    for first in range(19000, 30000, 50):
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
            return first
        except OSError:
            continue
    raise RuntimeError("no free ports on 127.0.0.1")


class Target:
    """Something that `corelog bench` can be pointed at: it has an `address`, and `pids` whose CPU time is the broker's."""

    def bench(self, *arguments):
        """Runs `corelog bench` to its end; its JSON."""
        return finish(self.start_bench(*arguments))

    def start_bench(self, *arguments):
        """Starts `corelog bench` beside others; `finish` waits for it."""
        command = [CORELOG, "bench", *map(str, arguments), "--json", "-b", self.address]
        for pid in self.pids:
            command += ["--pid", str(pid)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def command(self, *arguments):
        """Runs another command of `corelog` against this broker; its output."""
        return subprocess.run(
            [CORELOG, *map(str, arguments), "-b", self.address], check=True, stdout=subprocess.PIPE, text=True
        ).stdout


class Broker(Target):
    """A Corelog on loopback with a data directory of its own. `settings`: server.properties by name."""

    def __init__(self, settings=None, shards=1, parent=None, dirs=None, home=None, binary=None):
        self.binary = binary or CORELOG
        self.home = home or tempfile.mkdtemp(prefix="corelog-bench-", dir=parent)
        self.dirs = dirs or [os.path.join(self.home, "data")]
        self.settings = dict(settings or {})
        self.shards = shards
        self.port = free_ports(shards)
        self.process = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()
        shutil.rmtree(self.home, ignore_errors=True)

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self):
        return self.process.pid

    @property
    def pids(self):
        return [self.pid]

    def start(self, wait=True):
        """Starts the process; returns when it takes connections."""
        command = [self.binary, "serve", "--shards", str(self.shards)]
        wanted = {"listeners": f"PLAINTEXT://127.0.0.1:{self.port}", "log.dirs": ",".join(self.dirs), **self.settings}
        for key, value in wanted.items():
            command += ["--set", f"{key}={value}"]
        self.log = open(os.path.join(self.home, "broker.log"), "ab")
        self.process = subprocess.Popen(
            command, cwd=self.home, stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL, start_new_session=True
        )
        if wait:
            self.wait()

    def wait(self, seconds=120):
        log = os.path.join(self.home, "broker.log")
        wait_for(self.process, lambda: can_connect(self.port), log, seconds, pause=0.001)

    def tail(self):
        with open(os.path.join(self.home, "broker.log"), errors="replace") as log:
            return "".join(log.readlines()[-10:])

    def stop(self, kill=False):
        end(self.process, kill)


def can_connect(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    except OSError:
        return False


def wait_for(process, ready, log, seconds=120, pause=0.01):
    """Waits until `ready()`, as long as the process runs."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and process.poll() is None:
        if ready():
            return
        time.sleep(pause)
    with open(log, errors="replace") as lines:
        raise RuntimeError(f"{process.args[0]} did not start: {''.join(lines.readlines()[-10:])}")


def end(process, kill=False):
    """Stops a process that a script started; it gets a minute before it is killed."""
    if process is None or process.poll() is not None:
        return
    process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def led_partitions(port, topic):
    """How many of a topic's partitions have a leader, by the broker's own word (Metadata v4, which makes none); None as long as it does not answer."""
    name = topic.encode()
    request = struct.pack(">hhih", 3, 4, 1, -1) + struct.pack(">ih", 1, len(name)) + name + b"\0"
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as peer:
            peer.sendall(struct.pack(">i", len(request)) + request)
            stream = peer.makefile("rb")
            answer = io.BytesIO(stream.read(struct.unpack(">i", stream.read(4))[0]))
    except (OSError, struct.error):
        return None
    number = lambda form: struct.unpack(form, answer.read(struct.calcsize(form)))[0]
    text = lambda: answer.read(max(0, number(">h")))
    number(">i"), number(">i")
    for _ in range(number(">i")):
        number(">i"), text(), number(">i"), text()
    text(), number(">i")
    led = 0
    for _ in range(number(">i")):
        number(">h"), text(), number(">b")
        for _ in range(number(">i")):
            error, _, leader = number(">h"), number(">i"), number(">i")
            answer.read(4 * number(">i")), answer.read(4 * number(">i"))
            led += error == 0 and leader >= 0
    return led


def wait_for_leaders(peer, topic, partitions):
    """Waits until all of a topic's partitions can be produced to."""
    until = time.monotonic() + 120
    while led_partitions(peer.port, topic) != partitions:
        if time.monotonic() > until:
            raise RuntimeError(f"{topic} of {peer.NAME} has not {partitions} led partitions after two minutes")
        time.sleep(0.001)


def cpu_seconds(pids):
    """What these processes have used so far, user and system."""
    ticks = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def resident_mib(pids):
    """Resident memory of these processes together."""
    kib = 0
    for pid in pids:
        with open(f"/proc/{pid}/status") as status:
            kib += sum(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))
    return kib / 1024


def finish(process):
    out, err = process.communicate()
    # 1 tells that requests were answered with errors: the JSON says which, if there is one.
    if process.returncode != 0 and not out:
        raise RuntimeError(err.strip())
    result = json.loads(out)
    if result["errors"]:
        raise RuntimeError(f"requests failed: {result['errors']}")
    return result


def third_of_most(broker, load, seconds=5):
    """30 % of the records/s that the broker takes of this load."""
    result = broker.bench("produce", "--topic", "calibration", *load, "--duration", f"{seconds}s")
    os.sync()
    return 0.3 * result["totals"]["records"] / result["elapsed_seconds"]


class Outside:
    """A process that is none of the broker's, and reads files, or writes one, past the page cache at so many MB/s."""

    CODE = """
import itertools, mmap, os, sys, time
rate, seconds, size, scratch, *files = sys.argv[1:]
rate, seconds, size = float(rate) * 1e6, float(seconds), int(size)
buffer = mmap.mmap(-1, size)
def reads():
    for path in itertools.cycle(files):
        file = os.open(path, os.O_RDONLY | os.O_DIRECT)
        for at in range(0, os.path.getsize(path) // size * size, size):
            yield os.preadv(file, [buffer], at)
        os.close(file)
def writes():
    file = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_DIRECT)
    for at in itertools.cycle(range(0, 1 << 30, size)):
        yield os.pwritev(file, [buffer], at)
work, done, begun = reads() if files else writes(), 0, time.monotonic()
while time.monotonic() - begun < seconds:
    time.sleep(max(0, begun + done / rate - time.monotonic()))
    done += next(work)
print(done / 1e6 / (time.monotonic() - begun))
"""

    def __init__(self, megabytes, seconds, reads=(), writes=None, size=1 << 20):
        command = ["python3", "-c", self.CODE, *map(str, (megabytes, seconds, size, writes or "-", *reads))]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def finish(self):
        """The MB/s that it came to."""
        return float(self.process.communicate()[0])


def touch_memory(gib):
    """Has the kernel hand out and take back memory once: fresh pages of a virtual machine cost more than what is measured."""
    code = f"b = bytearray({gib} << 30)\nfor i in range(0, len(b), 4096): b[i] = 1"
    subprocess.run(["python3", "-c", code], check=False)


def spread(values, digits=0):
    """`median (least-greatest)`."""
    show = lambda value: f"{value:,.{digits}f}"
    middle = show(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} ({show(min(values))}-{show(max(values))})"


def ratios(ours, theirs, digits=2):
    """The ratio of each pair, as `spread` shows it."""
    pairs = [a / b for a, b in zip(ours, theirs) if b]
    return spread(pairs, digits) if pairs else "-"


def table(rows):
    """Prints rows of equal length with aligned columns, the first row being the heading."""
    widths = [max(len(str(row[column])) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(str(cell).ljust(width) for cell, width in zip(row, widths)).rstrip(), flush=True)
