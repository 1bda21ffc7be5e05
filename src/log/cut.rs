//! What opening a log cuts, and why it may be refused.

use super::compact::swap::SwapError;
use super::scan::Problem;
use crate::base::ids::Offset;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Bytes that were cut from a segment, or whole segments that went with them.
#[derive(Debug)]
pub struct Cut {
    pub file: PathBuf,
    pub position: u32,
    pub bytes: u64,
    pub next_offset: Offset,
    /// None: the whole file went, since it follows one that was cut or lies below the log's start.
    pub problem: Option<Problem>,
}

/// A log without damage that ends before offsets which were on disk: none of a crash's doing. Somebody removed its end, or the disk has lied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortfall {
    pub file: PathBuf,
    /// Where the file ends.
    pub position: u32,
    /// The recovery point.
    pub expected: Offset,
    pub found: Offset,
}

impl Shortfall {
    /// How many offsets are lost.
    pub fn offsets(&self) -> u64 {
        (self.expected - self.found).try_into().unwrap_or(0)
    }
}

/// The line of the broker's log.
impl fmt::Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shortfall { file, position, expected, found } = self;
        write!(
            f,
            "{}: the log ends there at byte {position}, offset {found}, but everything below offset {expected} was on disk: {} offsets are \
             lost, by no crash. Its end was removed, or segments behind it. The log goes on at offset {found}",
            file.display(),
            self.offsets()
        )
    }
}

/// The line of the broker's log: what was cut, from which offset on, and why.
impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cut { file, position, bytes, next_offset, problem } = self;
        match problem {
            Some(problem) => write!(
                f,
                "{}: cut at byte {position} ({bytes} bytes, from offset {next_offset} on): {problem}",
                file.display()
            ),
            None => write!(
                f,
                "{}: removed ({bytes} bytes, from offset {next_offset} on): what was before it is cut, or below the log's start",
                file.display()
            ),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "{path}: the disk cannot read a part of it: {source}. It is not known what stood there, so nothing is cut. Restore the file from \
         a copy, or put in its place what can be read of it"
    )]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{path}: {bytes} bytes are more than a segment can have")]
    TooLarge { path: PathBuf, bytes: u64 },
    #[error(
        "{path}: message format v{magic} at byte {position}: only v2 is served; have Kafka rewrite the topic in a newer format first"
    )]
    OldFormat { path: PathBuf, position: u32, magic: i8 },
    #[error("{path}: begins at offset {offset}, which no log reaches; remove the file if it is none of Kafka's")]
    OffsetTooHigh { path: PathBuf, offset: Offset },
    #[error("{path}: the checkpoint of log starts says {offset}, which no log reaches; correct its line")]
    StartTooHigh { path: PathBuf, offset: Offset },
    #[error(
        "{path}: its records go on to offset {end}, but another segment begins at {next}: one of them is none of this log's"
    )]
    Overlap { path: PathBuf, end: Offset, next: Offset },
    #[error(
        "{path}: damaged at byte {position}, offset {offset}: {problem}. Everything below offset {recovery_point} was on disk, so it is no \
         crash's doing, and nothing is cut. Restore the file from a copy, or set the partition's offset in \
         recovery-point-offset-checkpoint to {offset} to give up what follows"
    )]
    Damaged { path: PathBuf, position: u32, offset: Offset, recovery_point: Offset, problem: Problem },
    #[error("{0}")]
    Unnamed(Arc<str>),
    #[error(transparent)]
    Swap(#[from] SwapError),
}
