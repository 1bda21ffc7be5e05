//! Hostile input against the running broker: it answers or closes, stays within a stated bound of memory, and serves a
//! well-behaved client all the while.
//!
//! # The bound
//! Resident memory is at most what it was when the first clients had been served, plus
//!
//! - 16 KiB for each open connection, plus
//! - for each shard, what it holds of requests and of unread answers: `SHARD_RECEIVE_BYTES_MAX` (256 MiB), and one
//!   request of `socket.request.max.bytes` (100 MiB) beyond it, plus
//! - where members of groups come, what a shard keeps of them: `GROUPS_BYTES_MAX` (256 MiB), plus
//! - 48 MiB a shard for buffers kept for reuse, what allocators keep back, and the windows of decompressors.
//!
//! Where an attack has no right to the second part, the test does not grant it.

#[path = "../shape/broker.rs"]
mod broker;
#[path = "../shape/load.rs"]
mod load;
#[path = "../shape/wire.rs"]
mod wire;

mod amplified;
mod batches;
mod floods;
mod frames;
mod memory;
mod sessions;

use broker::{Broker, SHARDS, Start};
use load::{Load, Witness};

const CONNECTION_BYTES: u64 = 16 << 10;
const SHARD_BYTES: u64 = 48 << 20;
const REQUESTS_BYTES: u64 = (corelog::base::limits::SHARD_RECEIVE_BYTES_MAX + REQUEST_BYTES_MAX) as u64;
/// `socket.request.max.bytes` as it is unless set.
const REQUEST_BYTES_MAX: usize = 104_857_600;

/// A broker under attack, with a well-behaved client on each shard.
struct Besieged {
    broker: Broker,
    witness: Witness,
    base_bytes: u64,
    _dir: tempfile::TempDir,
}

impl Besieged {
    fn start() -> Besieged {
        Besieged::start_with(|start| start)
    }

    fn start_with(settings: impl FnOnce(Start) -> Start) -> Besieged {
        let dir = tempfile::tempdir().expect("temporary directory");
        let broker = settings(Start::new(dir.path())).start();
        let witness = Witness::start(Load::prepare(&broker, "witness"));
        let base_bytes = broker.resident_bytes();
        Besieged { broker, witness, base_bytes, _dir: dir }
    }

    /// With so many connections open, and requests that may or may not be held.
    #[track_caller]
    fn assert_memory(&self, connections: usize, may_hold_requests: bool) {
        self.assert_memory_with(connections, may_hold_requests, 0);
    }

    /// And so much for groups.
    #[track_caller]
    fn assert_memory_with(&self, connections: usize, may_hold_requests: bool, groups: u64) {
        let shards = u64::from(SHARDS);
        let held = if may_hold_requests { shards * REQUESTS_BYTES } else { 0 };
        let bound = self.base_bytes + connections as u64 * CONNECTION_BYTES + shards * SHARD_BYTES + held + groups;
        let now = self.broker.resident_bytes();
        println!(
            "{connections} connections: {} KiB at first, {} KiB now, bound {} KiB",
            self.base_bytes >> 10,
            now >> 10,
            bound >> 10
        );
        assert!(now <= bound, "{} MiB of memory, {} MiB allowed", now >> 20, bound >> 20);
    }

    fn end(mut self) {
        self.witness.finish();
        self.broker.assert_alive();
        let log = self.broker.log();
        assert!(!log.contains("panicked"), "{log}");
    }
}
