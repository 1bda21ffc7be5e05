//! Consumer groups: who commits offsets, and members of both protocols. What a coordinator has answered must be so after a crash.
//!
//! Each client counts upwards: its n-th commit says n, its n-th assignment or subscription bears n. So what is there afterwards must
//! lie between the greatest number that was acknowledged and the greatest that was sent.

use crate::ledger::{Counts, Promise};
use crate::mark::Mark;
use crate::world::{Load, connect};
use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use corelog::client::connection::{Connection, decode_response};
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, DescribeGroupsRequest,
    FindCoordinatorRequest, GroupId, JoinGroupRequest, OffsetCommitRequest, OffsetFetchRequest, ResponseHeader,
    SyncGroupRequest, TopicName,
};
use kafka_protocol::protocol::{Decodable, HeaderVersion, StrBytes};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Commits under way.
const WINDOW: usize = 8;
/// The longest pause between two requests.
const PAUSE_MAX: Duration = Duration::from_micros(2_500);
/// How long a coordinator may be loaded.
const LOADING_MAX: Duration = Duration::from_secs(30);
const RETRY_PAUSE: Duration = Duration::from_millis(5);

const NONE: i16 = 0;
const LOAD_IN_PROGRESS: i16 = 14;
const NOT_AVAILABLE: i16 = 15;
const NOT_COORDINATOR: i16 = 16;
const GROUP_NOT_FOUND: i16 = 69;
const MEMBER_ID_REQUIRED: i16 = 79;

/// The newest version of ConsumerGroupHeartbeat.
const HEARTBEAT_VERSION: i16 = 1;

/// One client of one group, which nobody else is in.
pub struct GroupClient {
    port: u16,
    group: String,
    random: fastrand::Rng,
    kind: Kind,
}

enum Kind {
    /// Belongs to no generation; one mark for each partition.
    Committer { topic: &'static str, marks: Vec<Mark>, next: i64 },
    /// The only member, joining and assigning again and again.
    Classic { member_id: String, generation: i32, mark: Mark },
    /// A member of the new protocol (KIP-848) that subscribes to something else each time.
    Consumer { epoch: i32, mark: Mark },
}

/// One client of each kind at the coordinator of each of these ports.
pub fn clients(ports: &[u16], (topic, partitions): (&'static str, i32), seed: u64) -> Result<Vec<GroupClient>> {
    let mut clients = Vec::new();
    for (name, kind) in [("committer", 0), ("classic", 1), ("consumer", 2)] {
        for (port, group) in groups_of(ports, name)? {
            let kind = match kind {
                0 => Kind::Committer { topic, marks: vec![Mark::default(); partitions as usize], next: 1 },
                1 => Kind::Classic { member_id: String::new(), generation: 0, mark: Mark::default() },
                _ => Kind::Consumer { epoch: 0, mark: Mark::default() },
            };
            let random = fastrand::Rng::with_seed(seed ^ (clients.len() as u64) << 32);
            clients.push(GroupClient { port, group, random, kind });
        }
    }
    Ok(clients)
}

/// For each port a group whose coordinator is there.
fn groups_of(ports: &[u16], name: &str) -> Result<Vec<(u16, String)>> {
    let names: Vec<String> = (0..40).map(|number| format!("{name}-{number}")).collect();
    let mut connection = connect(ports[0])?;
    let give_up = Instant::now() + LOADING_MAX;
    loop {
        let answer = connection.call(|_| {
            FindCoordinatorRequest::default().with_coordinator_keys(names.iter().map(|name| text(name)).collect())
        })?;
        let at = |port: &u16| {
            let here = |found: &&kafka_protocol::messages::find_coordinator_response::Coordinator| {
                found.error_code == NONE && found.port == i32::from(*port)
            };
            answer.coordinators.iter().find(here).map(|found| (*port, found.key.to_string()))
        };
        if let Some(found) = ports.iter().map(at).collect::<Option<Vec<_>>>() {
            return Ok(found);
        }
        ensure!(Instant::now() < give_up, "not every shard coordinates groups: {answer:?}");
        std::thread::sleep(RETRY_PAUSE);
    }
}

impl GroupClient {
    /// Goes on until the connection ends, which is well only when the load is over.
    pub fn run(&mut self, load: &Load) -> Result<()> {
        let ended = connect(self.port).and_then(|mut connection| self.work(&mut connection));
        match ended {
            // What is refused at the end of the load may be: the disk is gone by then.
            Err(error) if !load.is_over() || format!("{error:#}").contains("WRONG") => {
                Err(error.context(self.group.clone()))
            }
            _ => Ok(()),
        }
    }

    fn work(&mut self, connection: &mut Connection) -> Result<()> {
        when_loaded(connection, &self.group)?;
        let GroupClient { group, random, kind, .. } = self;
        match kind {
            Kind::Committer { topic, marks, next } => commit(connection, group, topic, (marks, next), random),
            Kind::Classic { member_id, generation, mark } => loop {
                assign(connection, group, member_id, generation, mark)?;
                std::thread::sleep(PAUSE_MAX.mul_f32(random.f32()));
            },
            Kind::Consumer { epoch, mark } => loop {
                subscribe(connection, group, epoch, mark)?;
                std::thread::sleep(PAUSE_MAX.mul_f32(random.f32()));
            },
        }
    }

    /// Holds what the coordinator knows against what it has said.
    pub fn check(&mut self, promise: Promise) -> Result<Counts> {
        let mut connection = connect(self.port)?;
        when_loaded(&mut connection, &self.group)?;
        let counts = match &mut self.kind {
            Kind::Committer { topic, marks, .. } => check_commits(&mut connection, &self.group, topic, marks, promise),
            Kind::Classic { member_id, generation, mark } => {
                check_assignment(&mut connection, &self.group, (member_id, generation), mark, promise)
            }
            Kind::Consumer { epoch, mark } => check_subscription(&mut connection, &self.group, epoch, mark, promise),
        };
        counts.with_context(|| format!("group {}", self.group))
    }
}

/// Waits until the group's coordinator has read its log.
fn when_loaded(connection: &mut Connection, group: &str) -> Result<()> {
    let give_up = Instant::now() + LOADING_MAX;
    loop {
        let code = fetch(connection, group, "nobody", 0)?.0;
        match code {
            NONE => return Ok(()),
            LOAD_IN_PROGRESS | NOT_AVAILABLE | NOT_COORDINATOR if Instant::now() < give_up => {
                std::thread::sleep(RETRY_PAUSE);
            }
            code => bail!("the coordinator of {group} answers {code}"),
        }
    }
}

/// Commits for some of the partitions at a time, several requests under way.
fn commit(
    connection: &mut Connection,
    group: &str,
    topic: &str,
    (marks, next): (&mut [Mark], &mut i64),
    random: &mut fastrand::Rng,
) -> Result<()> {
    let version = connection.version::<OffsetCommitRequest>()?;
    let mut awaited: VecDeque<(i64, Vec<usize>)> = VecDeque::new();
    loop {
        let mut chosen: Vec<usize> = (0..marks.len()).filter(|_| random.bool()).collect();
        chosen.push(random.usize(..marks.len()));
        chosen.dedup();
        let number = *next;
        *next += 1;
        let partition = |index: &usize| {
            OffsetCommitRequestPartition::default()
                .with_partition_index(*index as i32)
                .with_committed_offset(number)
                .with_committed_metadata(Some(text(&note(number))))
        };
        let partitions = chosen.iter().map(partition).collect();
        let of_topic = OffsetCommitRequestTopic::default().with_name(name(topic)).with_partitions(partitions);
        let request = OffsetCommitRequest::default().with_group_id(id(group)).with_topics(vec![of_topic]);
        chosen.iter().for_each(|index| marks[*index].send(number));
        let sent = connection.send(&request, version);
        if sent.is_ok() {
            awaited.push_back((number, chosen));
        }
        // Answers that had left before the end may still be here.
        while awaited.len() >= WINDOW || (!awaited.is_empty() && (sent.is_err() || random.u8(..4) == 0)) {
            let (number, chosen) = awaited.pop_front().expect("one is awaited");
            let frame = connection.receive("OffsetCommit")?;
            let answer = decode_response::<OffsetCommitRequest>(connection.addr(), frame, version)?;
            let codes = answer.topics.iter().flat_map(|topic| &topic.partitions).map(|partition| partition.error_code);
            if let Some(code) = codes.clone().find(|code| *code != NONE) {
                bail!("commit {number} was refused with code {code}");
            }
            ensure!(codes.count() == chosen.len(), "WRONG: not every partition is answered: {answer:?}");
            chosen.iter().for_each(|index| marks[*index].tell(number));
        }
        sent?;
        if random.bool() {
            std::thread::sleep(PAUSE_MAX.mul_f32(random.f32()));
        }
    }
}

/// What is kept beside an offset: of many lengths, so that records end anywhere in a sector.
fn note(number: i64) -> String {
    format!("{number}{}", ".".repeat((number % 300) as usize))
}

fn check_commits(
    connection: &mut Connection,
    group: &str,
    topic: &str,
    marks: &mut [Mark],
    promise: Promise,
) -> Result<Counts> {
    let (code, found) = fetch(connection, group, topic, marks.len() as i32)?;
    ensure!(code == NONE, "OffsetFetch: code {code}");
    ensure!(found.len() == marks.len(), "OffsetFetch tells of {} partitions", found.len());
    let mut counts = Counts::default();
    for (Committed { partition, offset, note: beside }, mark) in found.into_iter().zip(marks) {
        let is_whole = offset < 0 || beside == note(offset);
        ensure!(is_whole, "CHANGED: partition {partition} has offset {offset} with the note {beside:?}");
        mark.check(offset.max(0), promise, &mut counts).with_context(|| format!("offset of partition {partition}"))?;
    }
    Ok(counts)
}

/// What is committed for a partition.
struct Committed {
    partition: i32,
    offset: i64,
    note: String,
}

/// The group's error, and what it has of each partition.
fn fetch(connection: &mut Connection, group: &str, topic: &str, partitions: i32) -> Result<(i16, Vec<Committed>)> {
    let of_topic =
        OffsetFetchRequestTopics::default().with_name(name(topic)).with_partition_indexes((0..partitions).collect());
    let of_group = OffsetFetchRequestGroup::default().with_group_id(id(group)).with_topics(Some(vec![of_topic]));
    let answer = connection.call(|_| OffsetFetchRequest::default().with_groups(vec![of_group]))?;
    let answer = answer.groups.first().context("WRONG: no answer for the group")?;
    let partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
    let found = partitions.map(|found| Committed {
        partition: found.partition_index,
        offset: found.committed_offset,
        note: found.metadata.as_ref().map(ToString::to_string).unwrap_or_default(),
    });
    Ok((answer.error_code, found.collect()))
}

/// One generation: joins, and gives itself an assignment.
fn assign(
    connection: &mut Connection,
    group: &str,
    member_id: &mut String,
    generation: &mut i32,
    mark: &mut Mark,
) -> Result<()> {
    let protocol = JoinGroupRequestProtocol::default().with_name(text("counted"));
    let request = JoinGroupRequest::default()
        .with_group_id(id(group))
        .with_session_timeout_ms(60_000)
        .with_rebalance_timeout_ms(60_000)
        .with_protocol_type(text("durability"))
        .with_protocols(vec![protocol]);
    let mut answer = connection.call(|_| request.clone().with_member_id(text(member_id)))?;
    if answer.error_code == MEMBER_ID_REQUIRED {
        *member_id = answer.member_id.to_string();
        answer = connection.call(|_| request.with_member_id(text(member_id)))?;
    }
    ensure!(answer.error_code == NONE, "{member_id:?} may not join: code {}", answer.error_code);
    ensure!(answer.generation_id > *generation, "WRONG: generation {} after {generation}", answer.generation_id);
    let number = mark.next();
    mark.send(number);
    let bytes = Bytes::from(note(number));
    let assignment =
        SyncGroupRequestAssignment::default().with_member_id(text(member_id)).with_assignment(bytes.clone());
    let synced = connection.call(|_| {
        SyncGroupRequest::default()
            .with_group_id(id(group))
            .with_member_id(text(member_id))
            .with_generation_id(answer.generation_id)
            .with_protocol_type(Some(text("durability")))
            .with_protocol_name(Some(text("counted")))
            .with_assignments(vec![assignment])
    })?;
    ensure!(synced.error_code == NONE, "an assignment is refused with code {}", synced.error_code);
    ensure!(synced.assignment == bytes, "WRONG: assigned was {bytes:?}, told is {:?}", synced.assignment);
    mark.tell(number);
    *generation = answer.generation_id;
    Ok(())
}

fn check_assignment(
    connection: &mut Connection,
    group: &str,
    (member_id, generation): (&mut String, &mut i32),
    mark: &mut Mark,
    promise: Promise,
) -> Result<Counts> {
    let answer = connection.call(|_| DescribeGroupsRequest::default().with_groups(vec![id(group)]))?;
    let described = answer.groups.first().context("no answer for the group")?;
    ensure!(described.error_code == NONE, "DescribeGroups: code {}", described.error_code);
    let member = described.members.iter().find(|member| member.member_id.as_str() == member_id);
    ensure!(described.members.len() <= 1, "STRANGE: more than one member: {described:?}");
    let found = match member {
        Some(member) => number_of(std::str::from_utf8(&member.member_assignment)?)?,
        None => 0,
    };
    let mut counts = Counts::default();
    mark.check(found, promise, &mut counts)?;
    if member.is_none() {
        member_id.clear();
    }
    if promise == Promise::TailMayGo {
        *generation = 0;
    }
    Ok(counts)
}

/// The number that a note begins with; the rest must be as it was written.
fn number_of(text: &str) -> Result<i64> {
    let number = text.trim_end_matches('.').parse().with_context(|| format!("CHANGED: {text:?}"))?;
    ensure!(text == note(number), "CHANGED: {text:?} is not what was written for {number}");
    Ok(number)
}

/// The name of a topic that is not there, for each number.
const TOPIC_STEM: &str = "nobody-";

/// Subscribes to something else, which makes a new epoch.
fn subscribe(connection: &mut Connection, group: &str, epoch: &mut i32, mark: &mut Mark) -> Result<()> {
    let number = mark.next();
    mark.send(number);
    let topic = format!("{TOPIC_STEM}{}", note(number));
    let request = ConsumerGroupHeartbeatRequest::default()
        .with_group_id(id(group))
        .with_member_id(text("member"))
        .with_member_epoch(*epoch)
        .with_rebalance_timeout_ms(60_000)
        .with_subscribed_topic_names(Some(vec![name(&topic)]))
        .with_topic_partitions(Some(Vec::new()));
    connection.send(&request, HEARTBEAT_VERSION)?;
    // The client of the commands has no use for this API: its answer is read here.
    let mut frame = connection.receive("ConsumerGroupHeartbeat")?;
    ResponseHeader::decode(&mut frame, ConsumerGroupHeartbeatResponse::header_version(HEARTBEAT_VERSION))?;
    let answer = ConsumerGroupHeartbeatResponse::decode(&mut frame, HEARTBEAT_VERSION)?;
    let message = answer.error_message.as_deref().unwrap_or_default();
    ensure!(answer.error_code == NONE, "epoch {epoch} is refused with code {}: {message}", answer.error_code);
    ensure!(answer.member_epoch > *epoch, "WRONG: epoch {} after {epoch}", answer.member_epoch);
    mark.tell(number);
    *epoch = answer.member_epoch;
    Ok(())
}

fn check_subscription(
    connection: &mut Connection,
    group: &str,
    epoch: &mut i32,
    mark: &mut Mark,
    promise: Promise,
) -> Result<Counts> {
    let answer = connection.call(|_| ConsumerGroupDescribeRequest::default().with_group_ids(vec![id(group)]))?;
    let described = answer.groups.first().context("no answer for the group")?;
    let is_there = described.error_code != GROUP_NOT_FOUND;
    ensure!(!is_there || described.error_code == NONE, "ConsumerGroupDescribe: code {}", described.error_code);
    ensure!(described.members.len() <= 1, "STRANGE: more than one member: {described:?}");
    let (mut found, mut member_epoch) = (0, 0);
    if let Some(member) = described.members.first() {
        let topic = member.subscribed_topic_names.first().context("STRANGE: a member that wants nothing")?;
        let stem = topic.strip_prefix(TOPIC_STEM).with_context(|| format!("STRANGE: {topic:?}"))?;
        (found, member_epoch) = (number_of(stem)?, member.member_epoch);
    }
    let mut counts = Counts::default();
    mark.check(found, promise, &mut counts)?;
    let is_older = promise == Promise::Kept && member_epoch < *epoch;
    ensure!(!is_older, "LOST: the member was told epoch {epoch}, and is in {member_epoch}");
    *epoch = member_epoch;
    Ok(counts)
}

fn id(group: &str) -> GroupId {
    GroupId(text(group))
}

fn name(topic: &str) -> TopicName {
    TopicName(text(topic))
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}
