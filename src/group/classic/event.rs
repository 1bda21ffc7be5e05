//! What happens to a group, and what it wants to be done.

use bytes::Bytes;
use kafka_protocol::ResponseError;

/// Names whoever waits for an answer; what it is worth is the driver's affair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Waiter(pub u64);

/// Names a record that is on its way to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// Something that happens to a group.
#[derive(Clone, Debug)]
pub enum Event {
    Join(Waiter, JoinRequest),
    Sync(Waiter, SyncRequest),
    Heartbeat(Waiter, MemberClaim),
    Leave(Waiter, Vec<Leaving>),
    /// The record is in the log, as durable as acks=all promises, or nobody can promise that it will be.
    Stored(Ticket, Option<ResponseError>),
    /// Time has passed: what was due until now happens.
    Tick,
    /// The group is here no more, or no more one of this protocol: who waits is told so.
    Ended(ResponseError),
    /// Members are to share anew.
    Rebalance,
}

/// JoinGroup, as far as it concerns the group.
#[derive(Clone, Debug)]
pub struct JoinRequest {
    /// Empty: not a member yet.
    pub member_id: String,
    /// The id that a new member gets: nobody else's.
    pub fresh_id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub session_timeout_ms: i32,
    pub rebalance_timeout_ms: i32,
    pub protocol_type: String,
    /// Assignors by name with what each needs to know, the preferred one first.
    pub protocols: Vec<(String, Bytes)>,
    /// A new member is told its id and asks again with it (KIP-394).
    pub requires_known_id: bool,
    /// The client knows that a leader may have nothing to assign (KIP-814).
    pub can_skip_assignment: bool,
}

/// SyncGroup, as far as it concerns the group.
#[derive(Clone, Debug)]
pub struct SyncRequest {
    pub claim: MemberClaim,
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    /// From the leader: what each member gets.
    pub assignments: Vec<(String, Bytes)>,
}

/// Who somebody claims to be.
#[derive(Clone, Debug)]
pub struct MemberClaim {
    pub generation: i32,
    pub member_id: String,
    pub instance_id: Option<String>,
}

/// A member that leaves, or is made to: by id, or by instance id alone.
#[derive(Clone, Debug)]
pub struct Leaving {
    pub member_id: String,
    pub instance_id: Option<String>,
}

/// What a group wants to be done. Each waiter is answered exactly once.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    Joined(Waiter, JoinAnswer),
    Synced(Waiter, SyncAnswer),
    Beaten(Waiter, Option<ResponseError>),
    /// The error of all, or else of each.
    Left(Waiter, Result<Vec<Option<ResponseError>>, ResponseError>),
    /// Append this, then tell `Stored`.
    Store(Ticket, GroupRecord),
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct JoinAnswer {
    pub error: Option<ResponseError>,
    pub member_id: String,
    pub generation: i32,
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    pub leader: Option<String>,
    pub skip_assignment: bool,
    /// For the leader: everybody.
    pub members: Vec<JoinedMember>,
}

/// A member as the leader sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct JoinedMember {
    pub member_id: String,
    pub instance_id: Option<String>,
    pub metadata: Bytes,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct SyncAnswer {
    pub error: Option<ResponseError>,
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    pub assignment: Bytes,
}

/// What of a group outlives its coordinator: the value of its record in `__consumer_offsets`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GroupRecord {
    pub protocol_type: String,
    pub generation: i32,
    pub protocol: Option<String>,
    pub leader: Option<String>,
    /// When the group entered its state, in ms since 1970; -1 if nobody noted it.
    pub state_since_ms: i64,
    pub members: Vec<MemberRecord>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct MemberRecord {
    pub member_id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub rebalance_timeout_ms: i32,
    pub session_timeout_ms: i32,
    pub subscription: Bytes,
    pub assignment: Bytes,
}
