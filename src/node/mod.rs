//! The composition root: data directories, start-up checks, shards and the control plane.

pub mod format;
pub mod probe;
