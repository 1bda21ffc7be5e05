//! What opening a log cuts, and why it may be refused.

use super::compact::swap::SwapError;
use super::scan::Problem;
use crate::base::ids::Offset;
use std::fmt;
use std::io;
use std::path::PathBuf;

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
    #[error(transparent)]
    Swap(#[from] SwapError),
}
