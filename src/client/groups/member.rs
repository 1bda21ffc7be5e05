//! Being a member of a group by the classic protocol: join, agree on an assignment, be heard of, commit, leave.
//!
//! One thread does it all. A heartbeat is sent when it is due and its answer is taken when it is there, so that whoever reads records is
//! never kept waiting; only joining and committing wait, and joining ends when the caller says `stop`.

use super::admin::group_id;
use super::assign::{Assignor, Candidate};
use super::coordinator;
use super::protocol::{self, Partitions};
use crate::client::admin::{text, topic_name};
use crate::client::cluster::{Cluster, Retry};
use crate::client::connection::{Connection, api_name, decode_response};
use crate::client::error::ClientError;
use crate::client::metadata::Topics;
use crate::client::outage::Outage;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, OffsetCommitRequest,
    OffsetCommitResponse, SyncGroupRequest, SyncGroupResponse,
};
use kafka_protocol::protocol::Request;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Who joins what, and how long it may be silent. Times are Kafka's of the same names.
#[derive(Clone, Debug)]
pub struct MemberOptions {
    pub group: String,
    pub topic: String,
    /// Offered to the group, the preferred one first.
    pub assignors: Vec<Assignor>,
    /// `session.timeout.ms`: unheard of for so long, the member is out.
    pub session: Duration,
    /// How long a rebalance waits for this member.
    pub rebalance: Duration,
    /// `heartbeat.interval.ms`
    pub heartbeat: Duration,
}

/// What became of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Commit {
    Done,
    /// The partitions may be somebody else's by now: the group goes by another generation.
    TooLate,
}

pub(super) struct Member<'o> {
    options: &'o MemberOptions,
    cluster: Cluster,
    /// Empty until the coordinator gave one.
    id: String,
    generation: i32,
    connection: Option<Connection>,
    beat: Beat,
    /// Of a leader: the topics as they were when it assigned, and when to look whether they have grown.
    assigned_by: Option<(Partitions, Instant)>,
    /// The generation is over.
    must_rejoin: bool,
    outage: Outage,
}

/// Takes what the operator should know.
pub(super) type Tell<'t> = &'t mut dyn FnMut(&str);

/// The heartbeat.
struct Beat {
    due: Instant,
    /// Sent in this version, and not answered yet.
    sent: Option<(i16, Instant)>,
    /// The coordinator has not been reached since then.
    lost_since: Option<Instant>,
}

/// How long each look at a connection takes while waiting, between two of whether to stop.
const LOOK: Duration = Duration::from_millis(50);
/// A rebalance is answered a little after its time.
const REBALANCE_MARGIN: Duration = Duration::from_secs(10);
/// How often a leader looks whether topics have got partitions.
const TOPICS_LOOK: Duration = Duration::from_secs(30);

impl<'o> Member<'o> {
    pub fn new(cluster: Cluster, options: &'o MemberOptions) -> Member<'o> {
        let beat = Beat { due: Instant::now(), sent: None, lost_since: None };
        Member {
            options,
            cluster,
            id: String::new(),
            generation: -1,
            connection: None,
            beat,
            assigned_by: None,
            must_rejoin: true,
            outage: Outage::default(),
        }
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn generation(&self) -> i32 {
        self.generation
    }

    pub fn must_rejoin(&self) -> bool {
        self.must_rejoin
    }

    /// Joins until there is an assignment; None: `stop` said so.
    pub fn join(&mut self, stop: &dyn Fn() -> bool, tell: Tell<'_>) -> Result<Option<Partitions>, ClientError> {
        let mut retry = Retry::new(self.cluster.options().retry_for);
        loop {
            if stop() {
                return Ok(None);
            }
            let error = match self.try_join(stop) {
                Ok(assigned) => {
                    self.is_found(tell);
                    return Ok(assigned);
                }
                Err(error) => error,
            };
            match error.code() {
                Some(ResponseError::MemberIdRequired) => {}
                Some(ResponseError::UnknownMemberId) => self.id.clear(),
                // The group goes on without us: at once.
                Some(ResponseError::RebalanceInProgress | ResponseError::IllegalGeneration) => {
                    retry = Retry::new(self.cluster.options().retry_for);
                    std::thread::sleep(LOOK);
                }
                _ => {
                    self.connection = None;
                    self.is_lost(&error, tell);
                    retry.pause(error)?;
                }
            }
        }
    }

    fn try_join(&mut self, stop: &dyn Fn() -> bool) -> Result<Option<Partitions>, ClientError> {
        self.beat.sent.take().map(|_| self.connection.take());
        let request = self.join_request();
        let Some(joined) = self.ask(|_| request.clone(), stop)? else { return Ok(None) };
        if !joined.member_id.is_empty() {
            self.id = joined.member_id.to_string();
        }
        self.check("join", joined.error_code)?;
        let assignments = match joined.leader == joined.member_id {
            true => self.assign(&joined)?,
            false => {
                self.assigned_by = None;
                Vec::new()
            }
        };
        let request = SyncGroupRequest::default()
            .with_group_id(group_id(&self.options.group))
            .with_generation_id(joined.generation_id)
            .with_member_id(joined.member_id.clone())
            .with_assignments(assignments);
        let build = |version: i16| match version {
            5.. => {
                let protocol = joined.protocol_name.clone();
                request.clone().with_protocol_type(Some(text(CONSUMER))).with_protocol_name(protocol)
            }
            _ => request.clone(),
        };
        let Some(synced): Option<SyncGroupResponse> = self.ask(build, stop)? else { return Ok(None) };
        self.check("sync", synced.error_code)?;
        self.generation = joined.generation_id;
        self.must_rejoin = false;
        self.beat = Beat { due: Instant::now() + self.options.heartbeat, sent: None, lost_since: None };
        let nonsense = || ClientError::Invalid(format!("group {}: the assignment cannot be read", self.options.group));
        protocol::partitions_of(&synced.assignment).ok_or_else(nonsense).map(Some)
    }

    fn join_request(&self) -> JoinGroupRequest {
        let protocol = |assignor: &Assignor| {
            JoinGroupRequestProtocol::default()
                .with_name(text(assignor.name()))
                .with_metadata(protocol::subscription(std::slice::from_ref(&self.options.topic)))
        };
        JoinGroupRequest::default()
            .with_group_id(group_id(&self.options.group))
            .with_session_timeout_ms(millis(self.options.session))
            .with_rebalance_timeout_ms(millis(self.options.rebalance))
            .with_member_id(text(&self.id))
            .with_protocol_type(text(CONSUMER))
            .with_protocols(self.options.assignors.iter().map(protocol).collect())
    }

    /// As the group's leader: what each member gets.
    fn assign(&mut self, joined: &JoinGroupResponse) -> Result<Vec<SyncGroupRequestAssignment>, ClientError> {
        let group = &self.options.group;
        let name = joined.protocol_name.as_deref().unwrap_or_default();
        let assignor = Assignor::named(name).ok_or_else(|| {
            ClientError::Invalid(format!("group {group} is to be assigned by '{name}', which nobody here offered"))
        })?;
        let candidate = |member: &JoinGroupResponseMember| {
            let topics = protocol::topics_of(&member.metadata).ok_or_else(|| {
                let reason = format!("group {group}: the subscription of {} cannot be read", &*member.member_id);
                ClientError::Invalid(reason)
            })?;
            let instance_id = member.group_instance_id.as_ref().map(|id| id.to_string());
            Ok(Candidate { member_id: member.member_id.to_string(), instance_id, topics })
        };
        let members: Vec<Candidate> = joined.members.iter().map(candidate).collect::<Result<_, ClientError>>()?;
        let mut wanted: Vec<String> = members.iter().flat_map(|member| member.topics.clone()).collect();
        wanted.sort();
        wanted.dedup();
        let topics = self.topics(&wanted)?;
        let parts = assignor.assign(&members, &topics);
        self.assigned_by = Some((topics, Instant::now() + TOPICS_LOOK));
        let part = |(member_id, part): (&String, &Partitions)| {
            SyncGroupRequestAssignment::default()
                .with_member_id(text(member_id))
                .with_assignment(protocol::assignment(part))
        };
        Ok(parts.iter().map(part).collect())
    }

    /// The partitions of those topics that exist.
    fn topics(&mut self, names: &[String]) -> Result<Partitions, ClientError> {
        let metadata = self.cluster.try_metadata(&Topics::Named(names.to_vec()), false)?;
        let exist = metadata.topics.into_iter().filter(|(name, topic)| topic.error.is_none() && names.contains(name));
        Ok(exist.map(|(name, topic)| (name, topic.partitions.iter().map(|p| p.index).collect())).collect())
    }

    /// Is heard of by the coordinator if that is due, and notices when the generation is over. Does not wait.
    pub fn tick(&mut self, tell: Tell<'_>) -> Result<(), ClientError> {
        let now = Instant::now();
        if self.must_rejoin {
            return Ok(());
        }
        if let Err(error) = self.beat_on(now) {
            // The coordinator moves or starts again. The generation lives on, if it is back in time.
            self.connection = None;
            self.beat.sent = None;
            self.is_lost(&error, tell);
            let since = *self.beat.lost_since.get_or_insert(now);
            if !error.retriable() || now.duration_since(since) > self.cluster.options().retry_for {
                return Err(error);
            }
        } else if self.beat.lost_since.is_none() {
            self.is_found(tell);
        }
        if self.assigned_by.as_ref().is_some_and(|(_, due)| *due <= now) {
            self.look_at_topics(now);
        }
        Ok(())
    }

    fn beat_on(&mut self, now: Instant) -> Result<(), ClientError> {
        if let (Some((version, sent)), Some(connection)) = (self.beat.sent, &mut self.connection) {
            if connection.is_answered(Duration::ZERO)? {
                return self.take_beat(version);
            }
            if now.duration_since(sent) > self.options.session {
                let (addr, doing) = (connection.addr().to_owned(), "waiting for Heartbeat".to_owned());
                return Err(ClientError::TimedOut { addr, doing, after_ms: self.options.session.as_millis() });
            }
            return Ok(());
        }
        if self.beat.due > now {
            return Ok(());
        }
        self.beat.due = now + self.options.heartbeat;
        let request = HeartbeatRequest::default()
            .with_group_id(group_id(&self.options.group))
            .with_generation_id(self.generation)
            .with_member_id(text(&self.id));
        let connection = self.connection()?;
        let version = connection.version::<HeartbeatRequest>()?;
        connection.send(&request, version)?;
        self.beat.sent = Some((version, now));
        Ok(())
    }

    fn take_beat(&mut self, version: i16) -> Result<(), ClientError> {
        self.beat.sent = None;
        let connection = self.connection.as_mut().expect("invariant: the heartbeat was sent on it");
        let frame = connection.receive("Heartbeat")?;
        let answer = decode_response::<HeartbeatRequest>(connection.addr(), frame, version)?;
        self.beat.lost_since = None;
        match self.check("heartbeat", answer.error_code) {
            Err(error) if self.is_over(&error) => Ok(()),
            checked => checked,
        }
    }

    /// Whether this error says that another generation begins: then there is nothing to do but to join it.
    fn is_over(&mut self, error: &ClientError) -> bool {
        use ResponseError as E;
        match error.code() {
            Some(E::UnknownMemberId) => self.id.clear(),
            Some(E::RebalanceInProgress | E::IllegalGeneration | E::FencedInstanceId) => {}
            _ => return false,
        }
        self.must_rejoin = true;
        true
    }

    /// A leader has topics shared out anew when they have got partitions.
    fn look_at_topics(&mut self, now: Instant) {
        let Some((before, _)) = self.assigned_by.take() else { return };
        let names: Vec<String> = before.keys().cloned().collect();
        // Whatever is wrong with the cluster shows elsewhere.
        let changed = self.topics(&names).is_ok_and(|topics| topics != before);
        self.must_rejoin |= changed;
        self.assigned_by = Some((before, now + TOPICS_LOOK));
    }

    /// Commits the next offsets to read, by partition.
    pub fn commit(&mut self, offsets: &BTreeMap<i32, i64>, tell: Tell<'_>) -> Result<Commit, ClientError> {
        if offsets.is_empty() {
            return Ok(Commit::Done);
        }
        let request = self.commit_request(offsets);
        let mut retry = Retry::new(self.cluster.options().retry_for);
        loop {
            let error = match self.try_commit(&request) {
                Ok(()) => {
                    self.is_found(tell);
                    return Ok(Commit::Done);
                }
                Err(error) => error,
            };
            if self.is_over(&error) {
                return Ok(Commit::TooLate);
            }
            self.connection = None;
            self.beat.sent = None;
            self.is_lost(&error, tell);
            retry.pause(error)?;
        }
    }

    fn commit_request(&self, offsets: &BTreeMap<i32, i64>) -> OffsetCommitRequest {
        let partition = |(index, offset): (&i32, &i64)| {
            OffsetCommitRequestPartition::default()
                .with_partition_index(*index)
                .with_committed_offset(*offset)
                .with_committed_metadata(Some(text("")))
        };
        let topic = OffsetCommitRequestTopic::default()
            .with_name(topic_name(&self.options.topic))
            .with_partitions(offsets.iter().map(partition).collect());
        OffsetCommitRequest::default()
            .with_group_id(group_id(&self.options.group))
            .with_generation_id_or_member_epoch(self.generation)
            .with_member_id(text(&self.id))
            .with_topics(vec![topic])
    }

    fn try_commit(&mut self, request: &OffsetCommitRequest) -> Result<(), ClientError> {
        if let Some((version, _)) = self.beat.sent {
            // Answers come in order.
            self.take_beat(version)?;
        }
        let answer: OffsetCommitResponse = self.connection()?.call(|_| request.clone())?;
        let mut partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
        partitions.try_for_each(|partition| {
            self.check(&format!("commit of {}-{}", self.options.topic, partition.partition_index), partition.error_code)
        })
    }

    /// Leaves, so that the others need not wait for the session to end. Whether it works changes nothing for whoever leaves.
    pub fn leave(mut self) {
        if self.id.is_empty() {
            return;
        }
        let build = |version: i16| {
            let request = LeaveGroupRequest::default().with_group_id(group_id(&self.options.group));
            let member = || MemberIdentity::default().with_member_id(text(&self.id));
            match version {
                5.. => request.with_members(vec![member().with_reason(Some(text("the consumer ends")))]),
                3.. => request.with_members(vec![member()]),
                _ => request.with_member_id(text(&self.id)),
            }
        };
        // On a connection of its own: what this one still waits for may take as long as a rebalance.
        let left = coordinator::try_find(&mut self.cluster, &self.options.group)
            .and_then(|broker| self.cluster.open(broker))
            .and_then(|mut connection| connection.call(build));
        drop(left);
    }

    fn is_lost(&mut self, error: &ClientError, tell: Tell<'_>) {
        if let Some(text) = self.outage.fails(error, Instant::now(), self.cluster.options().retry_for) {
            tell(&format!("group {}: {text}", self.options.group));
        }
    }

    fn is_found(&mut self, tell: Tell<'_>) {
        if let Some(text) = self.outage.ends(Instant::now()) {
            tell(&format!("group {}: {text}", self.options.group));
        }
    }

    fn check(&self, what: &str, code: i16) -> Result<(), ClientError> {
        let what = format!("group {}: {what}", self.options.group);
        ClientError::from_code(what, code, None).map_or(Ok(()), Err)
    }

    fn connection(&mut self) -> Result<&mut Connection, ClientError> {
        if self.connection.is_none() {
            let broker = coordinator::try_find(&mut self.cluster, &self.options.group)?;
            self.connection = Some(self.cluster.open(broker)?);
        }
        Ok(self.connection.as_mut().expect("invariant: made above"))
    }

    /// Asks the coordinator what may take as long as a rebalance; None: `stop` said so, and the answer stays out.
    fn ask<R: Request>(
        &mut self,
        build: impl FnOnce(i16) -> R,
        stop: &dyn Fn() -> bool,
    ) -> Result<Option<R::Response>, ClientError> {
        let longest = self.options.rebalance + REBALANCE_MARGIN;
        let connection = self.connection()?;
        let version = connection.version::<R>()?;
        connection.send(&build(version), version)?;
        let sent = Instant::now();
        while !connection.is_answered(LOOK)? {
            if stop() {
                self.connection = None;
                return Ok(None);
            }
            if sent.elapsed() > longest {
                let (addr, doing) = (connection.addr().to_owned(), format!("waiting for {}", api_name(R::KEY)));
                self.connection = None;
                return Err(ClientError::TimedOut { addr, doing, after_ms: longest.as_millis() });
            }
        }
        let frame = connection.receive(&api_name(R::KEY))?;
        decode_response::<R>(connection.addr(), frame, version).map(Some)
    }
}

const CONSUMER: &str = "consumer";

fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}
