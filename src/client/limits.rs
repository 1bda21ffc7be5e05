//! The bounds of the client side.

/// Bytes of one response. Fetches ask for far less; a broker must still send a first batch that is larger than asked
/// for, so this stands above Kafka's `socket.request.max.bytes` (100 MiB), the largest batch that can have come in.
pub const RESPONSE_BYTES_MAX: usize = 128 << 20;

/// Bytes that a response's buffer grows by at a time: a lying length costs no more than what really arrives.
pub const RESPONSE_READ_STEP_BYTES: usize = 1 << 20;

/// Partitions of one topic that a producer keeps state for: an index beyond is a broker's lie.
pub const TOPIC_PARTITIONS_MAX: usize = 1_000_000;

/// Addresses in a bootstrap list.
pub const BOOTSTRAP_MAX: usize = 100;

/// Lines (or records) that one input record may span in bytes: Kafka's broker default is 1,048,588 a batch,
/// `max.message.bytes` can be raised; beyond this a "line" is a file without line ends.
pub const INPUT_RECORD_BYTES_MAX: usize = 64 << 20;

/// Requests in flight to one broker: with idempotence a Kafka broker remembers five batches of a producer (KIP-98).
pub const PRODUCE_IN_FLIGHT_MAX: usize = 5;

/// Failures that a produce summary lists one by one; the rest are counted.
pub const FAILURES_LISTED_MAX: usize = 100;
