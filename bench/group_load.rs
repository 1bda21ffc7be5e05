//! Load of consumer groups on any Kafka-compatible broker, and what it costs there; `bench/groups` runs it beside Apache Kafka.
//!
//! `cargo run --release --example group_load -- WHAT BOOTSTRAP PID [name=value...]`, where WHAT is
//! - `commits groups=200 connections=4 seconds=10`: each group has one member, which commits again and again, one commit in flight;
//! - `heartbeats`, the same with heartbeats;
//! - `settle members=500`: all join one group at once; over when all have their assignment of one generation;
//! - `settle-new members=500`: the same in the protocol in which the broker assigns (KIP-848), the partitions of a wide topic; over when all have
//!   come to the last epoch;
//! - `idle members=10000 group=100 seconds=30`: members of groups of so many that do nothing but send heartbeats.
//!
//! Prints one line of JSON. PID is the broker's, for its CPU time and memory. Requests are of versions that every broker since 2.0 serves,
//! in which a member need not ask twice for its id.

use bytes::Bytes;
use corelog::client::address::HostPort;
use corelog::client::cluster::{Cluster, Options, Target};
use corelog::client::connection::{Connection, decode_response};
use hdrhistogram::Histogram;
use kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use kafka_protocol::messages::consumer_group_heartbeat_response::TopicPartitions as AssignedPartitions;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, FindCoordinatorRequest, GroupId, HeartbeatRequest,
    JoinGroupRequest, JoinGroupResponse, OffsetCommitRequest, ResponseHeader, SyncGroupRequest, SyncGroupResponse,
    TopicName,
};
use kafka_protocol::protocol::{Decodable, HeaderVersion, Request, StrBytes};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

const JOIN_VERSION: i16 = 3;
const SYNC_VERSION: i16 = 2;
const HEARTBEAT_VERSION: i16 = 2;
const COMMIT_VERSION: i16 = 6;
/// The last in which the broker gives the member its id.
const CONSUMER_HEARTBEAT_VERSION: i16 = 0;
const SESSION_MS: i32 = 60_000;
const REBALANCE_IN_PROGRESS: i16 = 27;
/// Idle members that share a connection.
const SHARED_BY: usize = 4;
const TOPIC: &str = "group-load";
/// Of as many partitions as a large group has members.
const WIDE_TOPIC: &str = "group-load-wide";

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [what, bootstrap, pid, rest @ ..] = arguments.as_slice() else {
        return Err("WHAT BOOTSTRAP PID [name=value...]".into());
    };
    let given: HashMap<&str, u64> =
        rest.iter().filter_map(|pair| pair.split_once('=')).filter_map(|(n, v)| Some((n, v.parse().ok()?))).collect();
    let number = |name: &str, otherwise: u64| given.get(name).copied().unwrap_or(otherwise);
    let options = Options::new(HostPort::parse_list(bootstrap)?);
    let pid = pid.parse()?;
    let seconds = Duration::from_secs(number("seconds", 10));
    let result = match what.as_str() {
        "commits" | "heartbeats" => {
            let plan = (number("groups", 200) as usize, number("connections", 4) as usize);
            steady(&options, pid, plan, seconds, what == "commits")?
        }
        "settle" => settle(&options, pid, number("members", 500) as usize)?,
        "settle-new" => settle_new(&options, pid, number("members", 500) as usize)?,
        "idle" => idle(&options, pid, (number("members", 10_000) as usize, number("group", 100) as usize), seconds)?,
        other => return Err(format!("{other}: commits, heartbeats, settle, settle-new or idle").into()),
    };
    use std::io::Write;
    writeln!(std::io::stdout(), "{result}")?;
    Ok(())
}

/// Somebody in a group, on a connection of its own or one that it shares.
struct Member {
    group: String,
    id: String,
    generation: i32,
    leads: Vec<String>,
}

impl Member {
    fn new(group: String) -> Member {
        Member { group, id: String::new(), generation: -1, leads: Vec::new() }
    }

    fn join(&self) -> JoinGroupRequest {
        let protocol = JoinGroupRequestProtocol::default().with_name(text("range")).with_metadata(subscription());
        JoinGroupRequest::default()
            .with_group_id(GroupId(text(&self.group)))
            .with_session_timeout_ms(SESSION_MS)
            .with_rebalance_timeout_ms(SESSION_MS)
            .with_member_id(text(&self.id))
            .with_protocol_type(text("consumer"))
            .with_protocols(vec![protocol])
    }

    fn joined(&mut self, answer: JoinGroupResponse) -> Outcome<()> {
        succeeded("join", answer.error_code)?;
        self.id = answer.member_id.to_string();
        self.generation = answer.generation_id;
        self.leads = match answer.leader == answer.member_id {
            true => answer.members.iter().map(|member| member.member_id.to_string()).collect(),
            false => Vec::new(),
        };
        Ok(())
    }

    fn sync(&self) -> SyncGroupRequest {
        // As long as the assignment of a partition is.
        let part = |id: &String| {
            SyncGroupRequestAssignment::default().with_member_id(text(id)).with_assignment(Bytes::from_static(&[0; 32]))
        };
        SyncGroupRequest::default()
            .with_group_id(GroupId(text(&self.group)))
            .with_generation_id(self.generation)
            .with_member_id(text(&self.id))
            .with_assignments(self.leads.iter().map(part).collect())
    }

    fn heartbeat(&self) -> HeartbeatRequest {
        HeartbeatRequest::default()
            .with_group_id(GroupId(text(&self.group)))
            .with_generation_id(self.generation)
            .with_member_id(text(&self.id))
    }

    fn commit(&self, offset: i64) -> OffsetCommitRequest {
        let partition = OffsetCommitRequestPartition::default()
            .with_partition_index(0)
            .with_committed_offset(offset)
            .with_committed_metadata(Some(text("")));
        let topic =
            OffsetCommitRequestTopic::default().with_name(TopicName(text(TOPIC))).with_partitions(vec![partition]);
        OffsetCommitRequest::default()
            .with_group_id(GroupId(text(&self.group)))
            .with_generation_id_or_member_epoch(self.generation)
            .with_member_id(text(&self.id))
            .with_topics(vec![topic])
    }
}

/// `groups` groups of one member each over some connections to each broker, every member with one request in flight.
fn steady(
    options: &Options,
    pid: u32,
    (groups, connections): (usize, usize),
    measured: Duration,
    commits: bool,
) -> Outcome<serde_json::Value> {
    let mut cluster = Cluster::connect(options.clone())?;
    let mut of_broker: BTreeMap<i32, Vec<Member>> = BTreeMap::new();
    for number in 0..groups {
        let group = named("load", number);
        let broker = find(&mut cluster, &group)?;
        of_broker.entry(broker).or_default().push(Member::new(group));
    }
    let mut lanes = Vec::new();
    for (broker, mut members) in of_broker {
        let each = members.len().div_ceil(connections);
        while !members.is_empty() {
            let part = members.split_off(members.len().saturating_sub(each));
            lanes.push((cluster.open(broker)?, part));
        }
    }
    for (connection, members) in &mut lanes {
        for member in members {
            let answer = ask(connection, &member.join(), JOIN_VERSION)?;
            member.joined(answer)?;
            let synced = ask(connection, &member.sync(), SYNC_VERSION)?;
            succeeded("sync", synced.error_code)?;
        }
    }
    let warm_up = measured / 2;
    let start = Arc::new(Barrier::new(lanes.len() + 1));
    let threads: Vec<_> = lanes
        .into_iter()
        .map(|(connection, members)| {
            let start = Arc::clone(&start);
            std::thread::spawn(move || {
                start.wait();
                lane(connection, &members, (warm_up, measured), commits)
            })
        })
        .collect();
    start.wait();
    std::thread::sleep(warm_up);
    let (before, own_before) = (usage(pid)?, usage(std::process::id())?);
    std::thread::sleep(measured);
    let (after, own_after) = (usage(pid)?, usage(std::process::id())?);
    let mut latencies = Histogram::<u64>::new(3)?;
    for thread in threads {
        latencies.add(thread.join().map_err(|_| "a connection's thread has failed")??)?;
    }
    let count = latencies.len() as f64;
    Ok(serde_json::json!({
        "a_second": count / measured.as_secs_f64(),
        "broker_cpu_us_each": (after.cpu - before.cpu).as_secs_f64() * 1e6 / count,
        "generator_cpu_us_each": (own_after.cpu - own_before.cpu).as_secs_f64() * 1e6 / count,
        "p50_us": latencies.value_at_quantile(0.5),
        "p99_us": latencies.value_at_quantile(0.99),
        "broker_mb": after.resident_bytes as f64 / 1e6,
    }))
}

fn lane(
    mut connection: Connection,
    members: &[Member],
    (warm_up, measured): (Duration, Duration),
    commits: bool,
) -> Outcome<Histogram<u64>> {
    let mut latencies = Histogram::<u64>::new(3)?;
    let begun = Instant::now();
    let mut offset = 0;
    let mut send = |connection: &mut Connection, at: usize| -> Outcome<Instant> {
        offset += 1;
        let now = Instant::now();
        match commits {
            true => connection.send(&members[at].commit(offset), COMMIT_VERSION)?,
            false => connection.send(&members[at].heartbeat(), HEARTBEAT_VERSION)?,
        };
        Ok(now)
    };
    let mut sent = Vec::new();
    for at in 0..members.len() {
        sent.push(send(&mut connection, at)?);
    }
    // Answers come in the order of requests.
    for at in (0..members.len()).cycle() {
        let frame = connection.receive("an answer")?;
        let code = match commits {
            true => {
                let answer = decode_response::<OffsetCommitRequest>("broker", frame, COMMIT_VERSION)?;
                answer.topics.first().and_then(|topic| topic.partitions.first()).map_or(-1, |p| p.error_code)
            }
            false => decode_response::<HeartbeatRequest>("broker", frame, HEARTBEAT_VERSION)?.error_code,
        };
        succeeded("an answer", code)?;
        let passed = begun.elapsed();
        if passed > warm_up + measured {
            break;
        }
        if passed > warm_up {
            latencies.record(sent[at].elapsed().as_micros() as u64)?;
        }
        sent[at] = send(&mut connection, at)?;
    }
    Ok(latencies)
}

/// All join one group at once, each with a connection of its own, and go on until one generation has them all.
fn settle(options: &Options, pid: u32, members: usize) -> Outcome<serde_json::Value> {
    let mut cluster = Cluster::connect(options.clone())?;
    let group = named("settle", 0);
    let broker = find(&mut cluster, &group)?;
    let start = Arc::new(Barrier::new(members + 1));
    // Which generation each has its assignment of, and how many say so of the newest.
    let settled: Arc<Vec<AtomicI32>> = Arc::new((0..members).map(|_| AtomicI32::new(-1)).collect());
    let over = Arc::new(AtomicUsize::new(0));
    let mut threads = Vec::new();
    for at in 0..members {
        let mut connection = cluster.open(broker)?;
        let (start, settled, over) = (Arc::clone(&start), Arc::clone(&settled), Arc::clone(&over));
        let group = group.clone();
        let body = move || -> Outcome<()> {
            start.wait();
            let mut member = Member::new(group);
            while over.load(Ordering::Relaxed) == 0 {
                let answer = ask(&mut connection, &member.join(), JOIN_VERSION)?;
                member.joined(answer)?;
                let synced: SyncGroupResponse = ask(&mut connection, &member.sync(), SYNC_VERSION)?;
                if synced.error_code == REBALANCE_IN_PROGRESS {
                    continue;
                }
                succeeded("sync", synced.error_code)?;
                settled[at].store(member.generation, Ordering::Relaxed);
                while over.load(Ordering::Relaxed) == 0 {
                    std::thread::sleep(Duration::from_millis(200));
                    let beaten = ask(&mut connection, &member.heartbeat(), HEARTBEAT_VERSION)?;
                    if beaten.error_code == REBALANCE_IN_PROGRESS {
                        settled[at].store(-1, Ordering::Relaxed);
                        break;
                    }
                    succeeded("heartbeat", beaten.error_code)?;
                }
            }
            Ok(())
        };
        threads.push(std::thread::Builder::new().stack_size(256 << 10).spawn(body)?);
    }
    let before = usage(pid)?;
    start.wait();
    let begun = Instant::now();
    let generation = loop {
        std::thread::sleep(Duration::from_millis(2));
        let first = settled[0].load(Ordering::Relaxed);
        if first >= 0 && settled.iter().all(|one| one.load(Ordering::Relaxed) == first) {
            break first;
        }
        if begun.elapsed() > Duration::from_secs(120) {
            return Err("the group does not settle".into());
        }
    };
    let (seconds, after) = (begun.elapsed().as_secs_f64(), usage(pid)?);
    over.store(1, Ordering::Relaxed);
    for thread in threads {
        thread.join().map_err(|_| "a member's thread has failed")??;
    }
    let cpu = (after.cpu - before.cpu).as_secs_f64();
    Ok(serde_json::json!({ "seconds": seconds, "generations": generation, "broker_cpu_seconds": cpu }))
}

/// All join one group at once in the new protocol, each with a connection of its own, and go on until all have come to the last epoch.
fn settle_new(options: &Options, pid: u32, members: usize) -> Outcome<serde_json::Value> {
    let mut cluster = Cluster::connect(options.clone())?;
    let group = named("settle-new", 0);
    let broker = find(&mut cluster, &group)?;
    let start = Arc::new(Barrier::new(members + 1));
    let epochs: Arc<Vec<AtomicI32>> = Arc::new((0..members).map(|_| AtomicI32::new(0)).collect());
    let over = Arc::new(AtomicUsize::new(0));
    let mut threads = Vec::new();
    for at in 0..members {
        let mut connection = cluster.open(broker)?;
        let (start, epochs, over) = (Arc::clone(&start), Arc::clone(&epochs), Arc::clone(&over));
        let joining = ConsumerGroupHeartbeatRequest::default()
            .with_group_id(GroupId(text(&group)))
            .with_rebalance_timeout_ms(SESSION_MS)
            .with_subscribed_topic_names(Some(vec![TopicName(text(WIDE_TOPIC))]))
            .with_topic_partitions(Some(Vec::new()));
        let body = move || -> Outcome<()> {
            start.wait();
            let mut request = joining;
            while over.load(Ordering::Relaxed) == 0 {
                let answer = beat(&mut connection, &request)?;
                succeeded("heartbeat", answer.error_code)?;
                let owned = answer.assignment.map(|assignment| {
                    let of_topic = |one: AssignedPartitions| {
                        TopicPartitions::default().with_topic_id(one.topic_id).with_partitions(one.partitions)
                    };
                    assignment.topic_partitions.into_iter().map(of_topic).collect()
                });
                epochs[at].store(answer.member_epoch, Ordering::Relaxed);
                request = ConsumerGroupHeartbeatRequest::default()
                    .with_group_id(request.group_id)
                    .with_member_id(answer.member_id.unwrap_or_default())
                    .with_member_epoch(answer.member_epoch)
                    .with_rebalance_timeout_ms(-1)
                    .with_topic_partitions(owned);
                std::thread::sleep(Duration::from_millis(200));
            }
            Ok(())
        };
        threads.push(std::thread::Builder::new().stack_size(256 << 10).spawn(body)?);
    }
    let before = usage(pid)?;
    start.wait();
    let begun = Instant::now();
    let is_settled = || {
        let first = epochs[0].load(Ordering::Relaxed);
        first as usize >= members && epochs.iter().all(|one| one.load(Ordering::Relaxed) == first)
    };
    while !is_settled() {
        std::thread::sleep(Duration::from_millis(2));
        if let Some(at) = threads.iter().position(|thread| thread.is_finished()) {
            let ended = threads.remove(at).join().map_err(|_| "a member's thread has failed")?;
            return Err(ended.err().unwrap_or_else(|| "a member has ended".into()));
        }
        if begun.elapsed() > Duration::from_secs(120) {
            return Err("the group does not settle".into());
        }
    }
    let (seconds, after) = (begun.elapsed().as_secs_f64(), usage(pid)?);
    over.store(1, Ordering::Relaxed);
    for thread in threads {
        thread.join().map_err(|_| "a member's thread has failed")??;
    }
    let cpu = (after.cpu - before.cpu).as_secs_f64();
    Ok(serde_json::json!({ "seconds": seconds, "members": members, "broker_cpu_seconds": cpu }))
}

/// Members that send a heartbeat every three seconds and nothing else. A few share a connection, each of another group, since the number of
/// open files is limited here.
fn idle(
    options: &Options,
    pid: u32,
    (members, of_group): (usize, usize),
    measured: Duration,
) -> Outcome<serde_json::Value> {
    let empty = usage(pid)?;
    let mut cluster = Cluster::connect(options.clone())?;
    let mut of_broker: BTreeMap<i32, Vec<String>> = BTreeMap::new();
    for number in 0..members.div_ceil(of_group) {
        let group = named("idle", number);
        of_broker.entry(find(&mut cluster, &group)?).or_default().push(group);
    }
    let mut lanes: Vec<(Connection, Vec<Member>)> = Vec::new();
    for (broker, groups) in of_broker {
        for shared in groups.chunks(SHARED_BY) {
            for _ in 0..of_group {
                lanes.push((cluster.open(broker)?, shared.iter().cloned().map(Member::new).collect()));
            }
        }
    }
    let connected = usage(pid)?;
    for at in 0..SHARED_BY {
        gather(&mut lanes, at)?;
    }
    let members: Vec<(usize, usize)> =
        lanes.iter().enumerate().flat_map(|(lane, (_, all))| (0..all.len()).map(move |at| (lane, at))).collect();
    let (before, begun) = (usage(pid)?, Instant::now());
    let pause = Duration::from_secs(3) / members.len() as u32;
    let mut beats = 0u32;
    for (lane, at) in members.iter().cycle() {
        let (connection, all) = &mut lanes[*lane];
        if beats as usize >= members.len() {
            let frame = connection.receive("heartbeat")?;
            let answer = decode_response::<HeartbeatRequest>("broker", frame, HEARTBEAT_VERSION)?;
            succeeded("heartbeat", answer.error_code)?;
        }
        connection.send(&all[*at].heartbeat(), HEARTBEAT_VERSION)?;
        beats += 1;
        if let Some(early) = (pause * beats).checked_sub(begun.elapsed()) {
            std::thread::sleep(early);
        }
        if begun.elapsed() > measured {
            break;
        }
    }
    let after = usage(pid)?;
    let cpu = (after.cpu - before.cpu).as_secs_f64();
    let mb = |bytes: u64| bytes as f64 / 1e6;
    Ok(serde_json::json!({
        "members": members.len(),
        "broker_mb_before": mb(empty.resident_bytes),
        "broker_mb_connected": mb(connected.resident_bytes),
        "broker_mb": mb(after.resident_bytes),
        "broker_core": cpu / begun.elapsed().as_secs_f64(),
        "heartbeats": beats,
        "broker_cpu_us_each": cpu * 1e6 / f64::from(beats),
    }))
}

/// Has the members at one place of all connections join and fetch their assignments. The first round may gather a group in parts; in the second
/// all of them are known, and waited for.
fn gather(lanes: &mut [(Connection, Vec<Member>)], at: usize) -> Outcome<()> {
    for _ in 0..2 {
        for (connection, all) in &mut *lanes {
            if let Some(member) = all.get(at) {
                connection.send(&member.join(), JOIN_VERSION)?;
            }
        }
        for (connection, all) in &mut *lanes {
            if let Some(member) = all.get_mut(at) {
                let frame = connection.receive("join")?;
                member.joined(decode_response::<JoinGroupRequest>("broker", frame, JOIN_VERSION)?)?;
            }
        }
    }
    for (connection, all) in &mut *lanes {
        if let Some(member) = all.get(at) {
            connection.send(&member.sync(), SYNC_VERSION)?;
        }
    }
    for (connection, all) in &mut *lanes {
        if all.get(at).is_some() {
            let answer = decode_response::<SyncGroupRequest>("broker", connection.receive("sync")?, SYNC_VERSION)?;
            succeeded("sync", answer.error_code)?;
        }
    }
    Ok(())
}

/// The client checks the lengths in answers that it knows before it reads them; it is no member of the new protocol, and does not know this one.
fn beat(
    connection: &mut Connection,
    request: &ConsumerGroupHeartbeatRequest,
) -> Outcome<ConsumerGroupHeartbeatResponse> {
    connection.send(request, CONSUMER_HEARTBEAT_VERSION)?;
    let mut frame = connection.receive("an answer")?;
    let header_version = ConsumerGroupHeartbeatResponse::header_version(CONSUMER_HEARTBEAT_VERSION);
    ResponseHeader::decode(&mut frame, header_version).map_err(|e| e.to_string())?;
    Ok(ConsumerGroupHeartbeatResponse::decode(&mut frame, CONSUMER_HEARTBEAT_VERSION).map_err(|e| e.to_string())?)
}

fn ask<R: Request>(connection: &mut Connection, request: &R, version: i16) -> Outcome<R::Response> {
    connection.send(request, version)?;
    let frame = connection.receive("an answer")?;
    Ok(decode_response::<R>("broker", frame, version)?)
}

/// The coordinator; a new one may have to load its partition first, or make `__consumer_offsets`.
fn find(cluster: &mut Cluster, group: &str) -> Outcome<i32> {
    let begun = Instant::now();
    loop {
        // Up to version 3 the key is the message's own.
        let build = |version: i16| match version {
            4.. => FindCoordinatorRequest::default().with_coordinator_keys(vec![text(group)]),
            _ => FindCoordinatorRequest::default().with_key(text(group)),
        };
        let answer = cluster.try_call(Target::Any, build)?;
        let found = answer.coordinators.first().map(|found| (found.node_id.0, found.error_code));
        let (broker, code) = found.unwrap_or((answer.node_id.0, answer.error_code));
        match succeeded("find the coordinator", code) {
            Ok(()) => return Ok(broker),
            Err(error) if begun.elapsed() > Duration::from_secs(30) => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// CPU time and memory of a process.
struct Usage {
    cpu: Duration,
    resident_bytes: u64,
}

fn usage(pid: u32) -> Outcome<Usage> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(") ").ok_or("/proc/PID/stat has another form")?;
    let ticks: u64 = fields.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    let pages = std::fs::read_to_string(format!("/proc/{pid}/statm"))?;
    let resident: u64 = pages.split(' ').nth(1).and_then(|field| field.parse().ok()).ok_or("/proc/PID/statm is odd")?;
    Ok(Usage {
        cpu: Duration::from_secs_f64(ticks as f64 / per_second as f64),
        resident_bytes: resident * rustix::param::page_size() as u64,
    })
}

/// A group that no other run has: its members would be waited for.
fn named(what: &str, number: usize) -> String {
    format!("{what}-{}-{number}", std::process::id())
}

fn subscription() -> Bytes {
    corelog::client::groups::protocol::subscription(&[TOPIC.to_owned()])
}

fn succeeded(what: &str, code: i16) -> Outcome<()> {
    match code {
        0 => Ok(()),
        code => Err(format!("{what}: error {code}").into()),
    }
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}
