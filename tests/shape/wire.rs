//! Kafka's protocol over a plain blocking socket, for tests: whole requests, or any bytes at all.

#![allow(dead_code, reason = "each of the two suites uses its part")]

use super::broker::{Broker, PATIENCE};
use bytes::{BufMut, Bytes, BytesMut};
use corelog::record::batch::{PREFIX_LEN, walk};
use corelog::record::builder::BatchBuilder;
use corelog::record::compression::Compression;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    BrokerId, CreateTopicsRequest, FetchRequest, MetadataRequest, ProduceRequest, RequestHeader, ResponseHeader,
    TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

pub const PRODUCE_VERSION: i16 = 9;
pub const FETCH_VERSION: i16 = 12;
const METADATA_VERSION: i16 = 9;
const CREATE_TOPICS_VERSION: i16 = 5;
const NOT_LEADER: i16 = 6;

pub struct Client {
    pub stream: TcpStream,
    correlation_id: i32,
}

impl Client {
    pub fn connect(port: u16) -> Client {
        Client::try_connect(port).unwrap_or_else(|error| panic!("port {port}: {error}"))
    }

    pub fn try_connect(port: u16) -> io::Result<Client> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Client { stream, correlation_id: 0 })
    }

    /// A second handle of the same connection: one sends, the other receives.
    pub fn twin(&self) -> Client {
        Client { stream: self.stream.try_clone().expect("a descriptor"), correlation_id: 0 }
    }

    pub fn call<R: Request>(&mut self, version: i16, request: &R) -> io::Result<R::Response> {
        self.send(version, request)?;
        self.receive::<R>(version)
    }

    pub fn send<R: Request>(&mut self, version: i16, request: &R) -> io::Result<()> {
        self.correlation_id += 1;
        self.stream.write_all(&frame(version, self.correlation_id, request))
    }

    pub fn receive<R: Request>(&mut self, version: i16) -> io::Result<R::Response> {
        let mut answer = self.receive_frame()?;
        let wrong = |e| io::Error::other(format!("{e:#}"));
        ResponseHeader::decode(&mut answer, R::Response::header_version(version)).map_err(wrong)?;
        R::Response::decode(&mut answer, version).map_err(wrong)
    }

    pub fn receive_frame(&mut self) -> io::Result<Bytes> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let mut answer = vec![0; u32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut answer)?;
        Ok(Bytes::from(answer))
    }

    /// Whether the broker closes the connection, answering what it likes before. A timeout panics.
    pub fn is_closed_by_peer(&mut self) -> bool {
        let mut part = [0; 4096];
        loop {
            match self.stream.read(&mut part) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(e) if matches!(e.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => {
                    return true;
                }
                Err(e) => panic!("neither an end nor an answer: {e}"),
            }
        }
    }
}

/// A whole frame, its length included.
pub fn frame<R: Request>(version: i16, correlation_id: i32, request: &R) -> Bytes {
    let mut body = BytesMut::new();
    body.put_i32(0);
    RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation_id)
        .with_client_id(Some(StrBytes::from_static_str("test")))
        .encode(&mut body, R::header_version(version))
        .expect("a header that can be encoded");
    request.encode(&mut body, version).expect("a request that can be encoded");
    let length = body.len() as u32 - 4;
    body[..4].copy_from_slice(&length.to_be_bytes());
    body.freeze()
}

pub fn name(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_owned()))
}

/// Creates a topic that keeps its records, whatever their age, and returns the port of each partition's leader.
pub fn create_topic(broker: &Broker, topic: &str, partitions: i32, configs: &[(&str, &str)]) -> Vec<u16> {
    let configs = configs.iter().chain(&[("retention.ms", "-1")]).map(|(key, value)| {
        CreatableTopicConfig::default()
            .with_name(StrBytes::from_string((*key).to_owned()))
            .with_value(Some(StrBytes::from_string((*value).to_owned())))
    });
    let wanted = CreatableTopic::default()
        .with_name(name(topic))
        .with_num_partitions(partitions)
        .with_replication_factor(1)
        .with_configs(configs.collect());
    let request = CreateTopicsRequest::default().with_topics(vec![wanted]).with_timeout_ms(60_000);
    let mut client = Client::connect(broker.port);
    let answer = client.call(CREATE_TOPICS_VERSION, &request).expect("an answer");
    assert_eq!(answer.topics[0].error_code, 0, "{:?}", answer.topics[0].error_message);
    leaders(broker.port, topic)
}

/// The port of each partition's leader.
pub fn leaders(port: u16, topic: &str) -> Vec<u16> {
    let wanted = MetadataRequestTopic::default().with_name(Some(name(topic)));
    let request = MetadataRequest::default().with_topics(Some(vec![wanted]));
    let answer = Client::connect(port).call(METADATA_VERSION, &request).expect("an answer");
    let topic = &answer.topics[0];
    assert_eq!(topic.error_code, 0);
    let mut partitions = topic.partitions.clone();
    partitions.sort_by_key(|partition| partition.partition_index);
    let port_of = |leader: BrokerId| answer.brokers.iter().find(|broker| broker.node_id == leader).map(|b| b.port);
    partitions.iter().map(|p| port_of(p.leader_id).expect("a leader that is known") as u16).collect()
}

/// A batch of `records` records, with values of `bytes` each that differ by `seed`.
pub fn batch(seed: u64, records: usize, bytes: usize) -> Bytes {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut builder = BatchBuilder::new(Compression::NONE);
    for record in 0..records {
        let mut value = vec![0; bytes];
        random.fill(&mut value);
        let key = format!("{seed}-{record}");
        builder.push(1_700_000_000_000 + seed as i64, Some(key.as_bytes()), Some(&value), &[]).expect("a small record");
    }
    builder.build().expect("a batch")
}

pub fn produce_request(topic: &str, partition: i32, acks: i16, records: Bytes) -> ProduceRequest {
    let data = PartitionProduceData::default().with_index(partition).with_records(Some(records));
    let topic = TopicProduceData::default().with_name(name(topic)).with_partition_data(vec![data]);
    ProduceRequest::default().with_acks(acks).with_timeout_ms(30_000).with_topic_data(vec![topic])
}

/// Produces to one partition: base offset, or the error code.
pub fn produce(client: &mut Client, topic: &str, partition: i32, acks: i16, records: Bytes) -> Result<i64, i16> {
    let request = produce_request(topic, partition, acks, records);
    let answer = client.call(PRODUCE_VERSION, &request).expect("an answer to produce");
    produced(&answer)
}

pub fn produced(answer: &kafka_protocol::messages::ProduceResponse) -> Result<i64, i16> {
    let partition = &answer.responses[0].partition_responses[0];
    if partition.error_code == 0 { Ok(partition.base_offset) } else { Err(partition.error_code) }
}

pub fn fetch_request(topic: &str, partition: i32, offset: i64, max_bytes: i32, wait_ms: i32) -> FetchRequest {
    let one = FetchPartition::default()
        .with_partition(partition)
        .with_fetch_offset(offset)
        .with_current_leader_epoch(-1)
        .with_last_fetched_epoch(-1)
        .with_partition_max_bytes(max_bytes);
    FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(wait_ms)
        .with_min_bytes(1)
        .with_max_bytes(max_bytes)
        .with_session_epoch(-1)
        .with_topics(vec![FetchTopic::default().with_topic(name(topic)).with_partitions(vec![one])])
}

/// High watermark and records, as they lie in the log; the last batch may be cut.
pub fn fetch(client: &mut Client, topic: &str, partition: i32, offset: i64, max_bytes: i32) -> (i64, Bytes) {
    let request = fetch_request(topic, partition, offset, max_bytes, 0);
    let answer = client.call(FETCH_VERSION, &request).expect("an answer to fetch");
    let data = &answer.responses[0].partitions[0];
    assert_eq!(data.error_code, 0, "{topic}-{partition} from {offset}");
    (data.high_watermark, data.records.clone().unwrap_or_default())
}

/// After a crash a partition that is being recovered has no leader yet; any client asks again.
pub fn await_leader(client: &mut Client, topic: &str, partition: i32) {
    let until = Instant::now() + PATIENCE;
    loop {
        let request = fetch_request(topic, partition, 0, 1, 0);
        let answer = client.call(FETCH_VERSION, &request).expect("an answer to fetch");
        match answer.responses[0].partitions[0].error_code {
            NOT_LEADER if Instant::now() < until => std::thread::sleep(Duration::from_millis(10)),
            code => return assert_eq!(code, 0, "{topic}-{partition}"),
        }
    }
}

/// All batches of a partition from its beginning: base offset and bytes. Checks that offsets have no gap and that
/// every checksum is right.
pub fn read_all(client: &mut Client, topic: &str, partition: i32) -> Vec<(i64, Bytes)> {
    let (mut next, mut batches) = (0, Vec::new());
    loop {
        let (high_watermark, records) = fetch(client, topic, partition, next, 4 << 20);
        let before = next;
        let mut walk = walk(&records);
        for found in &mut walk {
            let found = found.unwrap_or_else(|e| panic!("{topic}-{partition} from {before}: {e}"));
            assert_eq!(found.header.base_offset.0, next, "{topic}-{partition}: a gap");
            assert!(found.header.crc_matches(found.bytes), "{topic}-{partition}: CRC at {next}");
            batches.push((next, records.slice_ref(found.bytes)));
            next = found.header.next_offset().0;
        }
        let rest = records.len() - walk.consumed();
        if next == high_watermark {
            assert_eq!(rest, 0, "{topic}-{partition}: bytes beyond the last batch");
            return batches;
        }
        assert!(next > before, "{topic}-{partition}: nothing at {next}, below the high watermark {high_watermark}");
    }
}

/// What a producer sent of a batch and the broker must keep: all but base offset, length and leader epoch.
pub fn kept(batch: &Bytes) -> Bytes {
    batch.slice(PREFIX_LEN..)
}
