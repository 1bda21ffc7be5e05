//! Why a run cannot begin, or did not come to its end.

use super::cutter::NotKafka;
use super::skim::SkimError;
use crate::client::error::ClientError;
use crate::record::builder::BuildError;
use std::io;

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("{0}")]
    Plan(String),
    /// A topic, or a leader of one of its partitions.
    #[error("{0}")]
    NotThere(String),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("the batch cannot be built: {0}")]
    Batch(#[from] BuildError),
    #[error("a connection under load failed: {0}")]
    Io(#[from] io::Error),
    #[error("the broker closed a frame that it had not finished: {0}")]
    Cut(#[from] bytes::TryGetError),
    #[error("the broker answered what nobody had asked")]
    Unasked,
    #[error(transparent)]
    NotKafka(#[from] NotKafka),
    #[error(transparent)]
    Skim(#[from] SkimError),
    #[error("process {pid}: {source}")]
    Process { pid: u32, source: io::Error },
}
