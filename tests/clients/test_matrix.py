"""Every client with every codec it has: what went in comes out, to itself and to a second client."""

import pytest

import adapters
from harness import raw
from harness.adapter import MESSAGE_TOO_LARGE, Refused
from harness.records import BASE_TIMESTAMP, TEN_MEBIBYTES, Record, assert_same, cases, text, value_filling
from harness.wait import create_again, wait_for_leader, wait_until

# Reads back what a client wrote, as a second opinion; librdkafka is read by Java and everyone else by librdkafka.
SECOND = {key: "java39" if key in ("kcat", "confluent", "rdkafka") else "confluent" for key in adapters.ALL}
MATRIX = [(key, codec) for key, kind in adapters.ALL.items() for codec in kind.codecs]
# The clients' own limit of a request: their defaults where nothing larger is sent.
DEFAULT_MAX_BYTES = 1_048_576


@pytest.fixture
def create(client_of, broker):
    """Creates a topic by the client itself where it can, else by confluent-kafka."""

    def create_topic(client, topic, partitions=1, config=None):
        maker = client if client.name != "kcat" else client_of("confluent")
        create_again(lambda: maker.create_topic(topic, partitions, config or {}))
        wait_for_leader(broker, topic, partitions)

    return create_topic


@pytest.mark.parametrize("client,codec", MATRIX)
def test_round_trip(client, codec, client_of, create, broker, topic):
    """Keys, headers, nulls, empties and 1,000,000 bytes at the broker's defaults, from an offset and from a time."""
    me, second = client_of(client), client_of(SECOND[client])
    create(me, topic)
    sent = cases(me)
    offsets = me.produce(topic, 0, sent, codec, DEFAULT_MAX_BYTES)
    assert offsets == list(range(len(sent)))

    for reader in [me, second] if me.consumes else [second]:
        got = reader.consume(topic, 0, len(sent), offset=0)
        assert_same(sent, got, timestamps=me.sets_timestamps)
        assert [record.offset for record in got] == offsets
        middle = len(sent) // 2
        assert reader.consume(topic, 0, len(sent) - middle, offset=middle) == got[middle:]
        from_time = got[middle].timestamp
        first = next(record.offset for record in got if record.timestamp >= from_time)
        assert reader.consume(topic, 0, len(sent) - first, timestamp=from_time) == got[first:]
        if me.sets_timestamps:  # between two records: the later one
            assert reader.consume(topic, 0, 1, timestamp=BASE_TIMESTAMP + 2500)[0].offset == 3

    assert_stored(broker, topic, codec, sent)


@pytest.mark.parametrize("client,codec", MATRIX)
def test_ten_mebibytes(client, codec, client_of, create, broker, topic):
    """A record of 10 MiB where max.message.bytes is raised to take it."""
    me, second = client_of(client), client_of(SECOND[client])
    create(me, topic, config={"max.message.bytes": str(TEN_MEBIBYTES + 1000)})
    sent = [Record(text(TEN_MEBIBYTES, seed=2), b"ten", timestamp=BASE_TIMESTAMP)]
    assert me.produce(topic, 0, sent, codec, 2 * TEN_MEBIBYTES) == [0]
    for reader in [me, second] if me.consumes else [second]:
        assert_same(sent, reader.consume(topic, 0, 1, offset=0), timestamps=me.sets_timestamps)
    assert_stored(broker, topic, codec, sent)


@pytest.mark.parametrize("client", adapters.ALL)
def test_one_byte_over(client, client_of, create, broker, topic):
    """A batch of exactly max.message.bytes is taken, one byte more is MESSAGE_TOO_LARGE and leaves nothing behind."""
    me = client_of(client)
    create(me, topic, config={"max.message.bytes": str(TEN_MEBIBYTES)})
    fits = value_filling(TEN_MEBIBYTES, b"k")
    assert me.produce(topic, 0, [Record(bytes(fits), b"k", timestamp=BASE_TIMESTAMP)], "none", 2 * TEN_MEBIBYTES) == [0]
    with pytest.raises(Refused) as refused:
        me.produce(topic, 0, [Record(bytes(fits + 1), b"k", timestamp=BASE_TIMESTAMP)], "none", 2 * TEN_MEBIBYTES)
    assert refused.value.code == MESSAGE_TOO_LARGE, refused.value
    assert me.produce(topic, 0, [Record(b"next", b"k", timestamp=BASE_TIMESTAMP)], "none", 2 * TEN_MEBIBYTES) == [1]
    assert [batch.size for batch in raw.batches(broker.port, topic, 0)][0] == TEN_MEBIBYTES


@pytest.mark.parametrize("client", adapters.ALL)
def test_over_the_default(client, client_of, create, broker, topic):
    """At broker defaults (message.max.bytes=1048588) one byte over is refused."""
    me = client_of(client)
    create(me, topic)
    fits = value_filling(1_048_588, b"k")
    assert me.produce(topic, 0, [Record(bytes(fits), b"k", timestamp=BASE_TIMESTAMP)], "none", 2 * TEN_MEBIBYTES) == [0]
    with pytest.raises(Refused) as refused:
        me.produce(topic, 0, [Record(bytes(fits + 1), b"k", timestamp=BASE_TIMESTAMP)], "none", 2 * TEN_MEBIBYTES)
    assert refused.value.code == MESSAGE_TOO_LARGE, refused.value


@pytest.mark.parametrize("client", [key for key, kind in adapters.ALL.items() if key != "kcat"])
def test_deletes_topics(client, client_of, create, broker, topic):
    """A topic that the client deletes is gone from metadata, and can be created again."""
    me = client_of(client)
    for round in range(2):
        create(me, topic, partitions=3)
        me.produce(topic, 2, [Record(b"x", timestamp=BASE_TIMESTAMP)], "none", DEFAULT_MAX_BYTES)
        assert raw.batches(broker.port, topic, 2)[0].base_offset == 0, "the log of the deleted topic is back"
        me.delete_topic(topic)
        wait_until(lambda: not raw.exists(broker.port, topic), f"topic {topic} is still listed, round {round}")


def assert_stored(broker, topic, codec, sent):
    """What lies in the log: magic 2, every record, and the large batch in the client's codec and smaller for it."""
    batches = raw.batches(broker.port, topic, 0)
    assert sum(batch.count for batch in batches) == len(sent)
    assert all(batch.magic == 2 for batch in batches)
    large = max(batches, key=lambda batch: batch.size)
    assert large.codec == codec, f"the batch of {large.size} bytes is stored with {large.codec}"
    plain = max(len(record.value or b"") for record in sent)
    assert (large.size < plain // 2) == (codec != "none"), f"{codec} made {large.size} of {plain} bytes"
