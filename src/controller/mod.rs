//! The controller: decides about topics (pure, `plan`), performs on the coordination store, publishes images.

pub mod drive;
mod election;
pub mod handle;
pub mod layout;
mod load;
mod perform;
pub mod plan;
pub mod publish;

use crate::base::ids::BrokerId;
use crate::coordination::{MultiError, StoreError};
use thiserror::Error;

/// Why the control plane cannot go on.
#[derive(Debug, Error)]
pub enum ControlError {
    #[error("the coordination store: {0}")]
    Store(#[from] StoreError),
    #[error("the coordination store: {0}")]
    Multi(#[from] MultiError),
    #[error("the coordination store: {0}")]
    Layout(#[from] layout::LayoutError),
    #[error("the coordination store belongs to cluster {found}, this node's directories to cluster {expected}")]
    OtherCluster { expected: String, found: String },
    #[error("broker {0} is registered already: another process runs under this node id")]
    BrokerTaken(BrokerId),
    #[error("the coordination store changed under every attempt to bring it in order")]
    Restless,
    #[error("a shard has ended")]
    ShardGone,
}
