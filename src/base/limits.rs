//! Every bound in one place: what is not bounded here is a defect.
//!
//! Units are last in the name. Configurable ones are defaults of `base::config`; the rest are fixed.

/// Requests of one connection that wait for their answers; reading stops beyond that.
pub const CONNECTION_IN_FLIGHT_MAX: usize = 128;

/// Bytes of requests of one connection that are held (received, not yet answered); reading stops beyond that,
/// except that one request of `socket.request.max.bytes` is always taken.
pub const CONNECTION_HELD_BYTES_MAX: usize = 32 << 20;

/// Array elements that one request may declare in all its arrays together.
/// Above what real clients send by orders of magnitude; below what would hurt (about 100 bytes each in memory).
pub const REQUEST_ELEMENTS_MAX: usize = 400_000;

/// Buffers of one write to a segment (IOV_MAX of Linux is 1,024).
pub const APPEND_IOVECS_MAX: usize = 1000;

/// Bytes of one write to a segment.
pub const APPEND_BYTES_MAX: usize = 8 << 20;

/// Uncompressed bytes that one record batch may grow to when its records are checked or recompressed.
pub const DECOMPRESSED_BATCH_BYTES_MAX: usize = 256 << 20;

/// Bytes of a compressed batch that are held uncompressed at a time while its records are checked.
pub const DECOMPRESS_CHUNK_BYTES: usize = 64 << 10;

/// Record errors that one refused batch is answered with; the rest are only counted.
pub const RECORD_ERRORS_MAX: usize = 1000;

/// A topic name's length (Kafka: 249, so that `-partition` and a suffix still fit a file name).
pub const TOPIC_NAME_BYTES_MAX: usize = 249;

const _: () = assert!(APPEND_IOVECS_MAX <= 1024);

/// Idempotent producers remembered by one partition; beyond it the one that was silent longest is forgotten.
pub const PRODUCERS_PER_PARTITION_MAX: usize = 100_000;

/// Batches at the end of a log whose positions are kept in memory, so that tail readers need no look-up on disk.
pub const RECENT_BATCHES_MAX: usize = 256;
