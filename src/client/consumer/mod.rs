//! Consuming chosen partitions from chosen offsets: one thread per leading broker fetches, the caller's thread decodes.
//!
//! `lane` decides what of a partition's batches is shown (pure), `fetcher` is a broker's fetching thread, `driver` keeps
//! partitions with their leaders and obeys the reset policy.

mod driver;
mod fetcher;
mod lane;

use super::error::ClientError;
use super::offsets::Isolation;
use crate::record::records::Record;
use std::io;
use std::time::Duration;

pub use driver::consume;

/// What to do when an offset is not (or no longer) in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    Earliest,
    Latest,
    Fail,
}

#[derive(Clone, Debug)]
pub struct ConsumerOptions {
    pub isolation: Isolation,
    pub reset: Reset,
    /// Bytes that one answer should not exceed, unless a single batch does.
    pub fetch_bytes: i32,
    pub partition_fetch_bytes: i32,
    /// How long a broker may hold an answer back while there is nothing.
    pub max_wait: Duration,
}

/// A partition to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assignment {
    pub partition: i32,
    pub from_offset: i64,
    /// Stop before this offset; None: go on forever.
    pub to_offset: Option<i64>,
}

/// Where the records go.
pub trait Sink {
    /// Takes one record; false stops.
    fn record(&mut self, partition: i32, record: &Record<'_>) -> io::Result<bool>;
    /// Nothing more is there at the moment: what was buffered should be seen.
    fn idle(&mut self) -> io::Result<()>;
    /// Something that the operator should know.
    fn notice(&mut self, text: &str);
    /// Everything before this offset was shown, or is none of a reader's business (control batches).
    fn passed(&mut self, _partition: i32, _next_offset: i64) {}
    /// Whether to stop, though the sink would take more. Asked a few times a second at least.
    fn is_over(&mut self) -> io::Result<bool> {
        Ok(false)
    }
}

fn corrupt(topic: &str, partition: i32, offset: i64, reason: impl std::fmt::Display) -> ClientError {
    ClientError::Invalid(format!(
        "{topic}-{partition} offset {offset}: the broker sent a corrupt batch: {reason}; `corelog dump` of the segment \
         shows whether its disk holds it so, `--offset {}` reads on behind it",
        offset.saturating_add(1)
    ))
}
