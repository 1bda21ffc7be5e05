//! One shard's machinery: its pinned thread, its listener, its connections and what leaves them.
//!
//! ```text
//!            accept             frames              Outcome            bytes, file slices
//! listener ─────────▶ connection ─────▶ Service::dispatch ─────▶ slots ─────▶ sender ─────▶ socket
//!                        │   ▲                                      │
//!                   receive  └── woken by the socket, the head slot's future, the sweeper, the budget
//! ```
//! Everything here lives and dies on one thread (`Rc`, `Cell`, `RefCell`); nothing is shared with another shard.
//! A connection is one task and one hand-written state machine: reader and writer need no channel between them, and an
//! idle connection costs its task only, since received bytes land in a chunk that all connections of the shard share.

pub mod breather;
mod connection;
pub mod listener;
pub mod network;
pub mod pipes;
mod receive;
pub mod runtime;
mod sender;

pub use connection::{ConnectionMeta, Service};
pub use network::{ConnectionLimits, Drained, NetSettings, Network};
pub use sender::FileSender;

#[cfg(test)]
mod tests;
