//! What every other room may use: identifiers, limits, configuration, metric cells, numbers for people.

pub mod clock;
pub mod config;
pub mod disks;
pub mod faults;
pub mod host;
pub mod ids;
pub mod limits;
pub mod logging;
pub mod metrics;
pub mod notify;
pub mod owner;
#[cfg(test)]
pub mod seeds;
pub mod show;
