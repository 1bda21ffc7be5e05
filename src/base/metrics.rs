//! Counters of one shard: written by its thread alone, read by the control plane at any time.
//!
//! A counter is a relaxed load and a relaxed store, not a read-modify-write: with one writer nothing is lost, and no
//! lock prefix stands on the hot path. The cells of two shards never share a cache line.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// API keys that are counted one by one; Kafka's highest is far below.
pub const API_KEYS_MAX: usize = 128;

/// Error codes that are counted one by one, from -1 on; Kafka's highest is far below.
pub const ERROR_CODES_MAX: usize = 192;

/// A number that one thread writes and any may read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub const fn new() -> Self {
        Counter(AtomicU64::new(0))
    }

    /// To be called by the owning thread only.
    pub fn add(&self, n: u64) {
        self.set(self.get().wrapping_add(n));
    }

    /// For what goes up and down, such as open connections. To be called by the owning thread only.
    pub fn subtract(&self, n: u64) {
        self.set(self.get().saturating_sub(n));
    }

    /// Keeps the largest. To be called by the owning thread only.
    pub fn raise(&self, n: u64) {
        if n > self.get() {
            self.set(n);
        }
    }

    /// To be called by the owning thread only.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Declares the named counters of a shard once: the cells, their beginning at 0, and their names.
macro_rules! shard_counters {
    ($($(#[$meaning:meta])* $name:ident,)+) => {
        /// What one shard counts. Shared as `Arc<ShardMetrics>` between its thread and the control plane.
        ///
        /// Aligned to two cache lines, since Intel's prefetcher fetches them in pairs.
        #[repr(align(128))]
        pub struct ShardMetrics {
            $($(#[$meaning])* pub $name: Counter,)+
            requests_by_key: [Counter; API_KEYS_MAX],
            errors_by_code: [Counter; ERROR_CODES_MAX],
        }

        impl ShardMetrics {
            pub fn new() -> Self {
                ShardMetrics {
                    $($name: Counter::new(),)+
                    requests_by_key: [const { Counter::new() }; API_KEYS_MAX],
                    errors_by_code: [const { Counter::new() }; ERROR_CODES_MAX],
                }
            }

            /// The named counters with their names.
            pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name.get()),)+].into_iter()
            }
        }
    };
}

shard_counters! {
    /// Record batches appended: one for each partition of a produce request.
    appends,
    append_bytes,
    /// Of them, those of compacted topics: so much compaction comes of them.
    append_compacted_bytes,
    /// Writes to segments; appends over writes is what one write carries. And those of the shard's own thread that took so long that
    /// it left writing to io_uring for a while.
    append_writes,
    append_stalls,
    /// Writes of the journals, what they held, and their bytes on disk.
    journal_groups,
    journal_entries,
    journal_bytes,
    /// How often the tail of a journal was moved up, and how often writers had to wait for it.
    journal_checkpoints,
    journal_full,
    /// Passes of compaction that went through, and what they read and wrote.
    compactions,
    compaction_read_bytes,
    compaction_written_bytes,
    /// Batches of the write that carried most.
    append_batches_max,
    /// Flushes to disk, and bytes that were handed to it before any.
    flushes,
    written_out_bytes,
    /// Bytes of records that fetches were answered with.
    fetch_bytes,
    /// Reads that went through user space because the data was not in memory.
    cold_reads,
    cold_read_bytes,
    /// Of what cold readers bring into memory: read before it was asked for, and dropped behind them.
    cold_ahead_bytes,
    cold_dropped_bytes,
    /// Damaged ranges that are known now, and answers of CORRUPT_MESSAGE to who asked for one.
    corrupt_ranges,
    corrupt_answers,
    /// Offsets that were on disk by the recovery points, and that logs did not have when they were opened.
    lost_offsets,
    /// Scrubbing: segments looked through, their bytes, segments with damage, segments in which offsets are missing although
    /// nothing was compacted, whole rounds; and bytes that those under way have before them.
    scrub_segments,
    scrub_bytes,
    scrub_damaged,
    scrub_gaps,
    scrub_rounds,
    scrub_left_bytes,
    /// Images whose deletions a disk kept longer than they should take.
    deletions_late,
    /// Open now.
    connections,
    connections_accepted,
    /// Closed at once: `max.connections.per.ip`, or no descriptor left.
    connections_refused,
    /// Closed by `connections.max.idle.ms`.
    connections_idle_closed,
    /// Closed to free memory that a stalled frame or an unread answer held.
    connections_stalled_closed,
    /// Requests that closed their connection: malformed, too large, or of an API or version that is not served.
    requests_refused,
    requests,
    bytes_in,
    bytes_out,
    /// recv calls that returned bytes.
    reads,
    /// sendmsg calls (each may carry many replies).
    writes,
    splice_calls,
    sendfile_calls,
    /// Turns that ended because one connection had moved enough bytes.
    breathers,
    /// Times a connection was not read because too much was in flight.
    reading_paused,
    /// Messages that another thread sent to the shard: cluster images, answers of the control plane and of the
    /// checkpoint writer. Produce and fetch must not move it.
    cross_shard_messages,
}

impl ShardMetrics {
    /// Counts a request by its API key; keys beyond the table are not counted.
    pub fn request(&self, api_key: i16) {
        if let Some(counter) = cell(&self.requests_by_key, i32::from(api_key)) {
            counter.add(1);
        }
    }

    /// Counts an answer by its error code, 0 excepted; codes beyond the table are not counted.
    pub fn error(&self, code: i16) {
        if code != 0
            && let Some(counter) = cell(&self.errors_by_code, i32::from(code) + 1)
        {
            counter.add(1);
        }
    }

    /// Requests per API key, those with any.
    pub fn requests(&self) -> impl Iterator<Item = (i16, u64)> {
        used(&self.requests_by_key, 0)
    }

    /// Answers per error code, those with any.
    pub fn errors(&self) -> impl Iterator<Item = (i16, u64)> {
        used(&self.errors_by_code, -1)
    }
}

/// Only what has been counted.
impl fmt::Debug for ShardMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        map.entries(self.named().filter(|(_, count)| *count > 0));
        map.entry(&"requests_by_key", &self.requests().collect::<Vec<_>>());
        map.entry(&"errors_by_code", &self.errors().collect::<Vec<_>>()).finish()
    }
}

impl Default for ShardMetrics {
    fn default() -> Self {
        Self::new()
    }
}

fn cell(cells: &[Counter], index: i32) -> Option<&Counter> {
    cells.get(usize::try_from(index).ok()?)
}

fn used(cells: &[Counter], first: i16) -> impl Iterator<Item = (i16, u64)> {
    cells.iter().zip(first..).map(|(counter, number)| (number, counter.get())).filter(|(_, count)| *count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn shards_do_not_share_cache_lines() {
        assert_eq!(align_of::<ShardMetrics>(), 128);
        assert_eq!(size_of::<ShardMetrics>() % 128, 0);
    }

    #[test]
    fn a_reader_sees_what_the_one_writer_counted() {
        let metrics = Arc::new(ShardMetrics::new());
        let writer = Arc::clone(&metrics);
        let thread = std::thread::spawn(move || {
            for _ in 0..10_000 {
                writer.appends.add(1);
                writer.request(0);
            }
            writer.connections.add(2);
            writer.connections.subtract(1);
        });
        let mut last = 0;
        while !thread.is_finished() {
            let now = metrics.appends.get();
            assert!(now >= last);
            last = now;
        }
        thread.join().expect("the writer does not panic");
        assert_eq!(metrics.appends.get(), 10_000);
        assert_eq!(metrics.requests().collect::<Vec<_>>(), [(0, 10_000)]);
        assert!(metrics.named().any(|named| named == ("connections", 1)));
    }

    #[test]
    fn keys_and_codes_from_outside_cannot_reach_beyond_the_table() {
        let metrics = ShardMetrics::new();
        for number in [i16::MIN, -2, -1, 0, 1, 127, 128, 500, i16::MAX] {
            metrics.request(number);
            metrics.error(number);
        }
        assert_eq!(metrics.requests().map(|(key, _)| key).collect::<Vec<_>>(), [0, 1, 127]);
        assert_eq!(metrics.errors().map(|(code, _)| code).collect::<Vec<_>>(), [-1, 1, 127, 128]);
    }
}
