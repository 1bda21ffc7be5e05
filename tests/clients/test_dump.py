"""Apache Kafka's own dump tool reads the segments, indexes and producer snapshots that the broker leaves behind; and what
Kafka leaves behind is read by `corelog verify` and `corelog dump`."""

import json
import re
import subprocess

import pytest

from harness.broker import KIND
from harness.paths import CORELOG
from harness.records import BASE_TIMESTAMP, Record, text
from harness.tools import Tools
from harness.wait import wait_for_leader, wait_until

pytestmark = pytest.mark.timeout(180)

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
# What DumpLogSegments says when a file is not as Kafka would have written it.
COMPLAINTS = ["Mismatches in", "Non-consecutive offsets", "Non-secutive offsets", "Found timestamp mismatch",
              "Found out of order", "isvalid: false", "invalid bytes", "sanity check failed", "Exception"]


@pytest.mark.parametrize("stop", ["terminated", "killed"])
def test_dump_log_segments(stop, own_broker, connect):
    broker = own_broker()
    java = connect("java39", broker)
    java.create_topic("dumped", 1, {"segment.bytes": "200000", "index.interval.bytes": "4096"})
    wait_for_leader(broker, "dumped")
    sent = []
    for round in range(5):
        for codec in CODECS:
            records = [Record(text(500, seed=n) if n % 7 else None, b"key %d" % n, [("header", b"%d" % n)],
                              BASE_TIMESTAMP + 1000 * (len(sent) + n)) for n in range(200)]
            java.produce("dumped", 0, records, codec, 1_000_000)
            sent += records

    if stop == "killed":  # what recovery makes of the files must be as good
        broker.kill()
        broker.start()
        wait_for_leader(broker, "dumped")
        assert java.consume("dumped", 0, len(sent), offset=0)[-1].value == sent[-1].value
    assert broker.terminate() == (0 if KIND == "corelog" else 143), "a clean end"

    [directory] = broker.partition_dirs("dumped", 0)
    segments = sorted(directory.glob("*.log"))
    assert len(segments) >= 3, "segment.bytes makes several segments"
    assert re.match(r"0\n\d+\n0 0\n", (directory / "leader-epoch-checkpoint").read_text()), "version, count, epoch 0 from offset 0"
    assert (directory / "partition.metadata").read_text().startswith("version: 0\ntopic_id: ")
    records_are_there(Tools("39", broker), segments, sent)
    indexes_agree(Tools("39", broker), segments)
    snapshots_decode(Tools("39", broker), directory)


def test_kafkas_own_directory(own_broker, connect):
    """Every codec, a topic that its cleaner compacts, transactions: in Kafka's own hands, and left by it."""
    kafka = own_broker({"log.segment.bytes": "30000", "log.index.interval.bytes": "1000", "log.cleaner.backoff.ms": "100",
                        "log.initial.task.delay.ms": "100", "transaction.state.log.num.partitions": "2"}, kind="kafka39")
    java = connect("java39", kafka)
    java.create_topic("plain", 2, {})
    java.create_topic("compacted", 1, {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.01"})
    for codec in CODECS:
        records = [Record(text(300, seed=n), b"key %d" % (n % 20), [], BASE_TIMESTAMP + n) for n in range(200)]
        java.produce("plain", 0, records, codec, 5000)
        java.produce("compacted", 0, records, codec, 5000)
    Tools("39", kafka).run("producer-perf-test", "--topic", "plain", "--num-records", "500", "--record-size", "100",
                           "--throughput", "-1", "--producer-props", f"bootstrap.servers={kafka.bootstrap}",
                           "--transactional-id", "t", "--transaction-duration-ms", "20")
    cleaned = kafka.data / "cleaner-offset-checkpoint"
    wait_until(lambda: cleaned.exists() and "compacted 0 " in cleaned.read_text(), "the cleaner did not come", 30)

    code, lines = verify(kafka.data)  # in use
    assert code == 0 and {line.get("check", "in-use") for line in lines} <= {"in-use", "leftover"}, lines
    assert lines[0]["found"] == f"process {kafka.pid} has it open"
    assert kafka.terminate() == 143
    code, lines = verify(kafka.data)
    assert code == 0 and {line.get("check", "leftover") for line in lines} == {"leftover"}, lines
    assert lines[-1]["segments"] > 10 and lines[-1]["records"] > 1000
    names = {"meta.properties", "recovery-point-offset-checkpoint", "log-start-offset-checkpoint",
             "replication-offset-checkpoint", "cleaner-offset-checkpoint"}
    files = [path for path in kafka.data.rglob("*") if path.name in names or path.parent != kafka.data]
    files = [path for path in files if path.is_file() and path.stat().st_size]
    assert {path.suffix for path in files} > {".log", ".index", ".timeindex", ".snapshot"}
    dumped = corelog("dump", "--quiet", "--records", *files)
    assert (dumped.returncode, dumped.stdout, dumped.stderr) == (0, "", "")

    [directory] = kafka.partition_dirs("plain", 0)
    segment = min(directory.glob("*.log"))
    content = bytearray(segment.read_bytes())
    content[100] ^= 1
    segment.write_bytes(content)
    code, lines = verify(kafka.data)
    found = [line for line in lines if line.get("severity") == "error"]
    assert code == 2 and [(line["check"], line["file"]) for line in found] == [("batch-crc", str(segment))]


def corelog(*arguments):
    return subprocess.run([CORELOG, *map(str, arguments)], capture_output=True, text=True, timeout=60)


def verify(directory):
    done = corelog("verify", "--json", directory)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def records_are_there(tools, segments, sent):
    output = dump(tools, segments, "--print-data-log")
    batches = re.findall(r"^baseOffset: (\d+) lastOffset: (\d+) count: (\d+) .* compresscodec: (\w+) .* isvalid: true", output, re.M)
    next_offset = 0
    for base, last, count, _codec in batches:
        assert int(base) == next_offset and int(last) - int(base) + 1 == int(count)
        next_offset = int(last) + 1
    assert next_offset == len(sent)
    assert {codec.lower() for *_, codec in batches} == set(CODECS)
    printed = re.findall(r"^\| offset: (\d+) (?:isValid: true crc: null )?(?:CreateTime|createTime): (\d+) keySize: (\d+) valueSize: (-?\d+)", output, re.M)
    want = [(str(n), str(r.timestamp), str(len(r.key)), str(-1 if r.value is None else len(r.value))) for n, r in enumerate(sent)]
    assert printed == want
    for segment in segments:  # a file is named by its first offset
        assert f"Dumping {segment}\nLog starting offset: {int(segment.stem)}\n" in output, segment


def indexes_agree(tools, segments):
    for suffix, entry in ((".index", r"^offset: (\d+) position: (\d+)$"), (".timeindex", r"^timestamp: (\d+) offset: (\d+)$")):
        files = [segment.with_suffix(suffix) for segment in segments]
        output = dump(tools, files)
        entries = re.findall(entry, output, re.M)
        assert len(entries) > len(files), f"{suffix} files have {len(entries)} entries:\n{output}"
        assert output.count("passed sanity check") == len(files) or "sanity" not in output
        assert "passed" in dump(tools, files, "--index-sanity-check")


def snapshots_decode(tools, directory):
    """The idempotent Java producers' state, as of the clean end."""
    snapshots = sorted(directory.glob("*.snapshot"))
    assert snapshots, "a clean end leaves a snapshot of the producers' state"
    output = dump(tools, snapshots[-1:])
    assert len(re.findall(r"^producerId: \d+ producerEpoch: 0 .*lastSequence: 199", output, re.M)) == 25, output


def dump(tools, files, *options):
    output = tools.run("dump-log", "--files", ",".join(map(str, files)), *options)
    for complaint in COMPLAINTS:
        assert complaint not in output, f"{complaint}:\n{output[-3000:]}"
    return output
