"""Waiting, always bounded."""

import re
import time

from . import raw
from .broker import KIND


def wait_until(condition, message, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, message() if callable(message) else message
        time.sleep(0.05)


def wait_for_leader(broker, topic, partitions=1, seconds=20.0):
    """Until metadata gives every partition a leader: Kafka answers CreateTopics a little earlier."""

    def ready():
        found = raw.metadata(broker.port, [topic])[1][topic]
        return found.error == 0 and len(found.leaders) == partitions and all(code == 0 for code in found.errors.values())

    wait_until(ready, f"{topic} got no leaders within {seconds} s", seconds)


def wait_for_coordinator(broker, group, seconds=20.0):
    """Until the group has one: Kafka makes its topic behind the first answer."""

    def ready():
        try:
            raw.coordinator(broker.port, group)
            return True
        except AssertionError:
            return False

    wait_until(ready, f"{group} got no coordinator within {seconds} s", seconds)


def wait_for_records(broker, topic, count, seconds=20.0):
    """Until the topic's only partition holds so many records: the traffic flows."""

    def flows():
        batches = raw.batches(broker.port, topic, 0)
        return bool(batches) and batches[-1].last_offset + 1 >= count

    wait_until(flows, f"{topic} never had {count} records", seconds)


def create_again(create):
    """Creates a topic whose namesake was just deleted. Apache Kafka with ZooKeeper refuses for a moment after
    metadata has forgotten the old one ("marked for deletion"); Corelog must not."""
    deadline = time.monotonic() + 20
    while True:
        try:
            return create()
        except Exception as error:
            if KIND == "corelog" or not re.search("marked for deletion|already ?exists", str(error), re.I) or time.monotonic() > deadline:
                raise
            time.sleep(0.1)
