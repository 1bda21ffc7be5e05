//! What every other room may use: identifiers, limits, configuration, metric cells.

pub mod clock;
pub mod config;
pub mod ids;
pub mod limits;
