"""kcat 1.7.1 as Debian ships it, with the system's older librdkafka."""

import re
import subprocess
from itertools import groupby

from harness.adapter import MESSAGE_TOO_LARGE, Client, Refused
from harness.records import Record

TIMEOUT_S = 60
# Delimiters that no case contains: kcat splits its input by strings.
KEY_END, RECORD_END = b"<k\x01>", b"<r\x01>\n"


class Kcat(Client):
    name = "kcat"
    # kcat has no option that sets a record's timestamp, and no administration.
    sets_timestamps = False
    # Headers are command-line arguments, which end at a zero byte.
    zero_in_headers = False

    def version(self):
        text = run(["-V"]).stdout.decode()
        return f"{re.search(r'Version ([0-9.]+)', text)[1]} (librdkafka {re.search(r'librdkafka ([0-9.]+)', text)[1]})"

    def produce(self, topic, partition, records, codec, max_bytes):
        first = self.end_offset(topic, partition)
        # Headers and the reading of empty as null hold for a whole invocation of kcat.
        for (headers, nulls, keyed), group in groupby(records, lambda r: (r.headers, r.value is None, r.key is not None)):
            options = ["-z", codec] if codec != "none" else []
            options += ["-Z"] if nulls else []
            for name, value in headers:
                options += ["-H", name.encode() if value is None else name.encode() + b"=" + value]
            data = b""
            for record in group:
                data += (record.key + KEY_END if keyed else b"") + (record.value or b"") + RECORD_END
            command = ["-P", "-b", self.bootstrap, "-t", topic, "-p", str(partition), "-D", RECORD_END,
                       "-X", f"message.max.bytes={max_bytes}", "-X", "acks=all", "-X", "linger.ms=20", *options]
            result = run(command + (["-K", KEY_END] if keyed else []), data)
            if b"Message size too large" in result.stderr:
                raise Refused(MESSAGE_TOO_LARGE, result.stderr.decode())
            assert result.returncode == 0 and b"failed" not in result.stderr.lower(), result.stderr.decode()
        return list(range(first, first + len(records)))

    def consume(self, topic, partition, count, offset=None, timestamp=None):
        start = str(offset) if timestamp is None else f"s@{timestamp}"
        result = run(["-C", "-b", self.bootstrap, "-t", topic, "-p", str(partition), "-o", start, "-c", str(count), "-q",
                      "-f", "%o %T %K %S\n%k%s%h<end\x01>\n"])
        assert result.returncode == 0, result.stderr.decode()
        return list(parse(result.stdout))

    def produce_file(self, topic, path, codec):
        """Lines `key TAB value`: kcat cannot set timestamps, so the second field is left out here."""
        lines = [line.split(b"\t", 2) for line in open(path, "rb")]
        data = b"".join(key + b"\t" + value for key, _timestamp, value in lines)
        options = ["-z", codec] if codec != "none" else []
        result = run(["-P", "-b", self.bootstrap, "-t", topic, "-K", "\t", "-X", "acks=all", *options], data)
        assert result.returncode == 0 and not result.stderr, result.stderr.decode()
        return len(lines)

    def end_offset(self, topic, partition):
        return self._query(topic, partition, -1)

    def start_offset(self, topic, partition):
        return self._query(topic, partition, -2)

    def _query(self, topic, partition, timestamp):
        result = run(["-Q", "-b", self.bootstrap, "-t", f"{topic}:{partition}:{timestamp}"])
        return int(re.search(r"offset (\d+)", result.stdout.decode())[1])


def run(arguments, data=b""):
    return subprocess.run(["kcat", *arguments], input=data, capture_output=True, timeout=TIMEOUT_S)


def parse(output: bytes):
    at = 0
    while at < len(output):
        line_end = output.index(b"\n", at)
        offset, timestamp, key_size, value_size = map(int, output[at:line_end].split())
        at = line_end + 1
        key, at = take(output, at, key_size)
        value, at = take(output, at, value_size)
        end = output.index(b"<end\x01>\n", at)
        headers = []
        for item in output[at:end].split(b",") if end > at else []:
            name, _, content = item.partition(b"=")
            headers.append((name.decode(), None if content == b"NULL" else content))
        at = end + len(b"<end\x01>\n")
        yield Record(value, key, headers, timestamp, offset)


def take(output: bytes, at: int, size: int):
    return (None, at) if size < 0 else (output[at : at + size], at + size)
