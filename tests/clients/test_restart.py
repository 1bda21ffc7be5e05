"""The broker is killed, or ended, and started again on the same ports while clients are connected and busy."""

import time

import pytest

from harness import raw
from harness.wait import wait_for_leader, wait_for_records

pytestmark = pytest.mark.timeout(120)
# Reconnecting backs off up to a second in every client; the rest is for the machine.
RESUME_S = 8.0


@pytest.mark.parametrize("end", ["kill", "terminate"])
@pytest.mark.parametrize("client", ["confluent", "java41"])
def test_restart_under_traffic(client, end, own_broker, connect):
    broker = own_broker()
    admin, running = connect("confluent", broker), connect(client, broker)
    admin.create_topic("busy", 1, {})
    wait_for_leader(broker, "busy")
    running.traffic_start("busy", 0)
    wait_for_records(broker, "busy", 200)

    getattr(broker, end)()
    broker.start()
    wait_for_leader(broker, "busy")
    started_ms = int(time.time() * 1000)
    # By the clock: what is tested is that both resume within it, and the consumer does not tell before it is stopped.
    time.sleep(RESUME_S)
    seen = running.traffic_stop()

    after = [ms for ms, _offset in seen["produced"] if ms >= started_ms]
    assert len(after) > 50, f"producing did not resume within {RESUME_S} s: {seen['errors'][-5:]}"
    assert any(ms >= started_ms for ms, *_ in seen["consumed"]), f"consuming did not resume: {seen['errors'][-5:]}"
    # Every acknowledged record has its own offset, and the log still holds every one of them.
    acknowledged = [offset for _ms, offset in seen["produced"]]
    assert len(acknowledged) == len(set(acknowledged)), "one offset was acknowledged for two records"
    end_offset = raw.batches(broker.port, "busy", 0)[-1].last_offset
    assert end_offset >= max(acknowledged)
    offsets = [offset for _ms, offset, _value in seen["consumed"]]
    assert offsets == list(range(len(offsets))), "the running consumer saw a gap or a repetition"
    assert len(offsets) >= len(acknowledged) - 100
