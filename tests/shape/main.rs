//! The shape of the broker, proved on the running binary: every core works for itself, appends are batched, records
//! leave the kernel without passing through the process, and a stop or a crash loses nothing that was promised.
//!
//! Each test starts brokers of its own, on free ports, in directories of its own.

mod bench;
mod broker;
mod commands;
mod crash;
mod cross;
mod load;
mod pinned;
mod refusals;
mod restart;
mod scrub;
mod trace;
mod wire;
