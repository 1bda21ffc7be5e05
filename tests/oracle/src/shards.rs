//! What only a node of several shards does: each shard leads some partitions and refuses the others' as a Kafka broker
//! refuses what another broker leads. One Kafka node has one broker, so Corelog is held against the codes alone.

use crate::batches::Batch;
use crate::boot::Broker;
use crate::normalise::error_name;
use crate::requests::{create, list_offsets, metadata, produce, topic, topic_name};
use crate::wire::{Connection, Received, decode};
use anyhow::{Context, Result, bail};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{
    DeleteRecordsRequest, FetchRequest, OffsetForLeaderEpochRequest, delete_records_request::*,
    offset_for_leader_epoch_request::*,
};
use kafka_protocol::protocol::Request;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};
use uuid::Uuid;

const NAME: &str = "spread";
const NOT_LEADER_OR_FOLLOWER: i16 = 6;
/// The newest version that Kafka 3.9 serves.
const METADATA_NEWEST: i16 = 12;

struct Node {
    /// By shard: broker id and connection.
    shards: Vec<(i32, Connection)>,
    topic_id: Uuid,
    failures: Vec<String>,
}

pub fn run(binary: &Path, port: u16) -> Result<bool> {
    let mut broker = Broker::corelog(binary, port, 2, &[])?;
    broker.ready()?;
    let mut node = prepare(broker.address)?;
    let answer = node.ask(0, 12, metadata(12, &[NAME]))?;
    let leaders: Vec<i32> = {
        let mut partitions = answer.topics[0].partitions.clone();
        partitions.sort_by_key(|partition| partition.partition_index);
        partitions.iter().map(|partition| partition.leader_id.0).collect()
    };
    for (index, &leader) in leaders.iter().enumerate() {
        for shard in 0..node.shards.len() {
            let expected = if node.shards[shard].0 == leader { 0 } else { NOT_LEADER_OR_FOLLOWER };
            node.data(shard, index as i32, leader, expected)?;
        }
    }
    let led = |id| leaders.iter().filter(|&&leader| leader == id).count();
    let counts: Vec<usize> = node.shards.iter().map(|(id, _)| led(*id)).collect();
    node.expect("partitions led by each shard", &counts, &vec![leaders.len() / 2; 2]);
    node.same_metadata()?;
    for failure in &node.failures {
        println!("SHARDS {failure}");
    }
    println!("2 shards: {} failures", node.failures.len());
    Ok(node.failures.is_empty())
}

/// Connects to both shards and makes a topic that lies on both.
fn prepare(address: SocketAddr) -> Result<Node> {
    let mut first = Connection::open(address)?;
    let brokers = one(&mut first, 12, &metadata(12, &[]))?.brokers;
    if brokers.len() != 2 {
        bail!("2 shards show as {} brokers", brokers.len());
    }
    let mut shards = Vec::new();
    for broker in &brokers {
        let port = u16::try_from(broker.port).context("an advertised port")?;
        shards.push((broker.node_id.0, Connection::open((address.ip(), port).into())?));
    }
    let created = one(&mut first, 7, &create(vec![topic(NAME, 4, &[])]))?;
    if created.topics.iter().any(|topic| topic.error_code != 0) {
        bail!("creating the topic failed: {created:?}");
    }
    let mut node = Node { shards, topic_id: created.topics[0].topic_id, failures: Vec::new() };
    let began = Instant::now();
    for shard in 0..2 {
        loop {
            let answer = node.ask(shard, 12, metadata(12, &[NAME]))?;
            if answer.topics.iter().all(|topic| topic.error_code == 0 && topic.partitions.len() == 4) {
                break;
            }
            if began.elapsed() > Duration::from_secs(10) {
                bail!("shard {shard} does not know the topic after 10 s: {answer:?}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(node)
}

impl Node {
    /// Every request that only the leader answers, for one partition at one shard.
    fn data(&mut self, shard: usize, partition: i32, leader: i32, expected: i16) -> Result<()> {
        let refused = expected != 0;
        for version in 3..=11 {
            let request = produce(-1, NAME, vec![(partition, Some(Batch::small(1).build()))]);
            let answer = self.ask(shard, version, request)?;
            let found = &answer.responses[0].partition_responses[0];
            self.code(&format!("Produce v{version}"), shard, partition, found.error_code, expected);
            if version >= 10 && refused {
                let hint =
                    (found.current_leader.leader_id.0, answer.node_endpoints.iter().any(|end| end.node_id.0 == leader));
                self.expect(&format!("Produce v{version}: leader hint"), &hint, &(leader, true));
            }
        }
        for version in 4..=17 {
            let answer = self.ask(shard, version, self.fetch(version, partition))?;
            let found = &answer.responses[0].partitions[0];
            self.code(&format!("Fetch v{version}"), shard, partition, found.error_code, expected);
            if version >= 16 && refused {
                let hint =
                    (found.current_leader.leader_id.0, answer.node_endpoints.iter().any(|end| end.node_id.0 == leader));
                self.expect(&format!("Fetch v{version}: leader hint"), &hint, &(leader, true));
            }
        }
        for version in 1..=8 {
            let answer = self.ask(shard, version, list_offsets(version, NAME, &[(partition, -1, -1)]))?;
            let found = answer.topics[0].partitions[0].error_code;
            self.code(&format!("ListOffsets v{version}"), shard, partition, found, expected);
        }
        for version in 0..=2 {
            let place = DeleteRecordsPartition::default().with_partition_index(partition).with_offset(0);
            let topic = DeleteRecordsTopic::default().with_name(topic_name(NAME)).with_partitions(vec![place]);
            let request = DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(5_000);
            let answer = self.ask(shard, version, request)?;
            let found = answer.topics[0].partitions[0].error_code;
            self.code(&format!("DeleteRecords v{version}"), shard, partition, found, expected);
        }
        for version in 2..=4 {
            let place = OffsetForLeaderPartition::default().with_partition(partition).with_current_leader_epoch(-1);
            let topic = OffsetForLeaderTopic::default().with_topic(topic_name(NAME)).with_partitions(vec![place]);
            let answer = self.ask(shard, version, OffsetForLeaderEpochRequest::default().with_topics(vec![topic]))?;
            let found = answer.topics[0].partitions[0].error_code;
            self.code(&format!("OffsetForLeaderEpoch v{version}"), shard, partition, found, expected);
        }
        Ok(())
    }

    fn fetch(&self, version: i16, partition: i32) -> FetchRequest {
        let place = FetchPartition::default().with_partition(partition).with_partition_max_bytes(1 << 20);
        let topic = FetchTopic::default().with_partitions(vec![place]);
        let topic = if version >= 13 { topic.with_topic_id(self.topic_id) } else { topic.with_topic(topic_name(NAME)) };
        let request = FetchRequest::default().with_topics(vec![topic]).with_max_bytes(1 << 20);
        if version >= 7 { request.with_session_epoch(-1) } else { request }
    }

    /// Both shards tell the same of the cluster.
    fn same_metadata(&mut self) -> Result<()> {
        let version = METADATA_NEWEST;
        let answers =
            [self.ask(0, version, metadata(version, &[NAME]))?, self.ask(1, version, metadata(version, &[NAME]))?];
        let [first, second] = answers.map(|answer| format!("{answer:?}"));
        self.expect("metadata of both shards", &second, &first);
        Ok(())
    }

    fn ask<R: Request>(&mut self, shard: usize, version: i16, request: R) -> Result<R::Response> {
        one(&mut self.shards[shard].1, version, &request)
    }

    fn code(&mut self, what: &str, shard: usize, partition: i32, found: i16, expected: i16) {
        let what = format!("{what} of partition {partition} at shard {shard}");
        self.expect(&what, &error_name(found), &error_name(expected));
    }

    fn expect<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, found: &T, expected: &T) {
        if found != expected {
            self.failures.push(format!("{what}: {found:?}, expected {expected:?}"));
        }
    }
}

fn one<R: Request>(connection: &mut Connection, version: i16, request: &R) -> Result<R::Response> {
    connection.send(request, version, true)?;
    match connection.receive()? {
        Received::Frame(frame) => decode::<R>(frame, version),
        Received::Closed => bail!("API {} v{version}: the shard closed the connection", R::KEY),
        Received::Silent => bail!("API {} v{version}: no answer", R::KEY),
    }
}
