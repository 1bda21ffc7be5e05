"""A topic is deleted and created again under running clients; its partition comes back on another broker."""

import time

import pytest

from harness import raw
from harness.broker import KIND
from harness.wait import create_again, wait_for_leader, wait_for_records, wait_until

pytestmark = pytest.mark.timeout(120)
# The running clients refresh metadata every 2 s; one refresh and a little for the machine.
REFRESH_S = 2.0
SLACK_S = 3.0


@pytest.mark.parametrize("client", ["confluent", "java39", "java41"])
def test_recreated_under_traffic(client, own_broker, connect):
    broker = own_broker({"auto.create.topics.enable": "false", "log.segment.delete.delay.ms": "1000"})
    running, admin = connect(client, broker), connect("confluent", broker)
    admin.create_topic("moving", 1, {})
    wait_for_leader(broker, "moving")
    home = raw.metadata(broker.port, ["moving"])[1]["moving"].leaders[0]
    running.traffic_start("moving", 0)
    wait_for_records(broker, "moving", 200)

    for number in range(3):
        admin.delete_topic("moving")
        wait_until(lambda: not raw.exists(broker.port, "moving"), "the topic is still listed")
        deleted_ms = int(time.time() * 1000)
        time.sleep(0.5)  # the clients are to meet a broker without the topic
        home = create_elsewhere(admin, broker, home, number)
        created_ms = int(time.time() * 1000)
        # By the clock: what is tested is that both resume within it, and the consumer does not tell before it is stopped.
        time.sleep(REFRESH_S + SLACK_S)

    seen = running.traffic_stop()
    resumed(seen["produced"], created_ms, "producing", seen)
    resumed(seen["consumed"], created_ms, "consuming", seen)
    # The last topic is read from its first offset on, with nothing lost, doubled or out of order.
    offsets = [offset for _ms, offset, _value in seen["consumed"]]
    assert 0 in offsets, "the new topic was never read from its first offset"
    start = len(offsets) - 1 - offsets[::-1].index(0)
    assert offsets[start:] == list(range(len(offsets) - start))
    values = [int(value) for _ms, _offset, value in seen["consumed"][start:]]
    assert values == sorted(set(values))
    assert seen["consumed"][start][0] >= deleted_ms, "offset 0 of an earlier topic"


def create_elsewhere(admin, broker, home, number):
    """Creates the topic so that another node leads it, by giving the old home's neighbours less or more to do first."""
    nodes = raw.metadata(broker.port, [])[0]
    for attempt in range(6):
        create_again(lambda: admin.create_topic("moving", 1, {}))
        wait_for_leader(broker, "moving")
        leader = raw.metadata(broker.port, ["moving"])[1]["moving"].leaders[0]
        if leader != home or len(nodes) == 1:
            return leader
        assert attempt < 5, "no other node ever led the topic"
        admin.delete_topic("moving")
        wait_until(lambda: not raw.exists(broker.port, "moving"), "the topic is still listed")
        # One more partition on the old home makes another node the less loaded one.
        admin.create_topic(f"ballast-{number}-{attempt}", 1, {})
    raise AssertionError("unreachable: the last attempt returns or fails")


def resumed(events, created_ms, what, seen):
    after = [event[0] for event in events if event[0] >= created_ms]
    errors = seen["errors"][-5:]
    assert after, f"{what} never resumed on {KIND}; last errors: {errors}"
    delay = (after[0] - created_ms) / 1000
    assert delay <= REFRESH_S + SLACK_S / 2, f"{what} resumed after {delay} s; last errors: {errors}"
    assert len(after) > 50, f"{what}: only {len(after)} records after it resumed; last errors: {errors}"
