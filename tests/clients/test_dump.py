"""Apache Kafka's own dump tool reads the segments, indexes and producer snapshots that the broker leaves behind."""

import re

import pytest

from harness.broker import KIND
from harness.records import BASE_TIMESTAMP, Record, text
from harness.tools import Tools
from harness.wait import wait_for_leader

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
