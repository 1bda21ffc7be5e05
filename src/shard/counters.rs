//! What a shard counts about its sockets: plain cells, since only its own thread writes them.

use std::cell::Cell;

/// Counts since the shard began, except `connections_open`, which is a level.
#[derive(Debug, Default)]
pub struct Counters {
    pub connections_open: Cell<u64>,
    pub connections_accepted: Cell<u64>,
    /// Closed at once: `max.connections.per.ip`, or no descriptor left.
    pub connections_rejected: Cell<u64>,
    /// Closed by `connections.max.idle.ms`.
    pub connections_idle_closed: Cell<u64>,
    /// Closed to free receive memory that a stalled frame held.
    pub connections_stalled_closed: Cell<u64>,
    pub requests: Cell<u64>,
    pub bytes_in: Cell<u64>,
    pub bytes_out: Cell<u64>,
    /// recv calls that returned bytes.
    pub reads: Cell<u64>,
    /// sendmsg calls (each may carry many replies).
    pub writes: Cell<u64>,
    pub splice_calls: Cell<u64>,
    pub sendfile_calls: Cell<u64>,
    /// Turns that ended because one connection had moved enough bytes.
    pub breathers: Cell<u64>,
    /// Times a connection was not read because too much was in flight.
    pub reading_paused: Cell<u64>,
}

/// Adds to a counter cell.
#[inline]
pub(super) fn add(cell: &Cell<u64>, count: u64) {
    cell.set(cell.get().wrapping_add(count));
}
