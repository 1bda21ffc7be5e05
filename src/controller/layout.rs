//! The store's nodes: paths and JSON as Apache Kafka 0.8 to 3.9 keeps them in ZooKeeper, so that people and tools that
//! know these find them here. What is ours beyond Kafka's: a partition state's `incarnation`.

use crate::base::ids::{BrokerId, LeaderEpoch, NodeId, TopicId};
use crate::cluster::image::{Broker, Partition};
use bytes::Bytes;
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use std::collections::BTreeMap;
use thiserror::Error;

pub const BROKER_IDS: &str = "/brokers/ids";
pub const TOPICS: &str = "/brokers/topics";
pub const CONTROLLER: &str = "/controller";
pub const CONTROLLER_EPOCH: &str = "/controller_epoch";
pub const CLUSTER_ID: &str = "/cluster/id";
pub const CONFIG_TOPICS: &str = "/config/topics";
pub const CONFIG_BROKERS: &str = "/config/brokers";
pub const DELETE_TOPICS: &str = "/admin/delete_topics";
pub const PRODUCER_IDS: &str = "/latest_producer_id_block";

/// Nodes that must be there before anything else; parents first.
pub const ROOTS: &[&str] =
    &["/brokers", BROKER_IDS, TOPICS, "/cluster", "/config", CONFIG_TOPICS, CONFIG_BROKERS, "/admin", DELETE_TOPICS];

/// A node whose content is not what its place calls for.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{path}: {reason}")]
pub struct LayoutError {
    pub path: String,
    pub reason: String,
}

pub fn broker_path(id: BrokerId) -> String {
    format!("{BROKER_IDS}/{id}")
}

pub fn topic_path(topic: &str) -> String {
    format!("{TOPICS}/{topic}")
}

pub fn partitions_path(topic: &str) -> String {
    format!("{TOPICS}/{topic}/partitions")
}

pub fn partition_path(topic: &str, partition: usize) -> String {
    format!("{TOPICS}/{topic}/partitions/{partition}")
}

pub fn state_path(topic: &str, partition: usize) -> String {
    format!("{TOPICS}/{topic}/partitions/{partition}/state")
}

pub fn topic_config_path(topic: &str) -> String {
    format!("{CONFIG_TOPICS}/{topic}")
}

/// None: the default of all brokers.
pub fn broker_config_path(node: Option<NodeId>) -> String {
    match node {
        Some(node) => format!("{CONFIG_BROKERS}/{node}"),
        None => format!("{CONFIG_BROKERS}/<default>"),
    }
}

pub fn delete_topic_path(topic: &str) -> String {
    format!("{DELETE_TOPICS}/{topic}")
}

/// `/brokers/ids/N`, version 5. Without a configured address the host is null, and the endpoint has none.
pub fn encode_broker(broker: &Broker, now_ms: i64) -> Bytes {
    let host = broker.host.as_deref();
    let json = BrokerJson {
        version: 5,
        host: host.map(str::to_string),
        port: broker.port,
        endpoints: vec![format!("PLAINTEXT://{}:{}", host.unwrap_or(""), broker.port)],
        jmx_port: -1,
        timestamp: now_ms.to_string(),
        rack: broker.rack.clone(),
        listener_security_protocol_map: BTreeMap::from([("PLAINTEXT".into(), "PLAINTEXT".into())]),
        features: BTreeMap::new(),
    };
    encode(&json)
}

pub fn decode_broker(id: BrokerId, data: &[u8]) -> Result<Broker, LayoutError> {
    let json: BrokerJson = decode(&broker_path(id), data)?;
    Ok(Broker { id, host: json.host, port: json.port, rack: json.rack })
}

/// `/brokers/topics/T`, version 3.
pub fn encode_topic<'a>(id: TopicId, replicas: impl Iterator<Item = &'a [BrokerId]> + Clone) -> Bytes {
    encode(&TopicOut {
        version: 3,
        partitions: Assignment(replicas),
        adding_replicas: BTreeMap::new(),
        removing_replicas: BTreeMap::new(),
        topic_id: id.to_string(),
    })
}

/// The topic's id, and its replicas by partition.
pub fn decode_topic(topic: &str, data: &[u8]) -> Result<(TopicId, Vec<Vec<BrokerId>>), LayoutError> {
    let path = topic_path(topic);
    let bad = |reason: &str| LayoutError { path: path.clone(), reason: reason.into() };
    let json: TopicIn = decode(&path, data)?;
    let id = TopicId::parse(&json.topic_id).ok_or_else(|| bad("topic_id is not a topic id"))?;
    if json.partitions.is_empty() || !json.partitions.keys().copied().eq(0..json.partitions.len() as i32) {
        return Err(bad("partitions are not numbered from 0 without a gap"));
    }
    if json.partitions.values().any(Vec::is_empty) {
        return Err(bad("a partition has no replicas"));
    }
    let brokers = |ids: Vec<i32>| ids.into_iter().map(BrokerId).collect();
    Ok((id, json.partitions.into_values().map(brokers).collect()))
}

/// `/brokers/topics/T/partitions/P/state`, version 1.
pub fn encode_state(partition: &Partition, controller_epoch: i32) -> Bytes {
    encode(&StateJson {
        controller_epoch,
        leader: partition.leader.map_or(-1, |leader| leader.0),
        version: 1,
        leader_epoch: partition.leader_epoch.0,
        isr: partition.isr.iter().map(|id| id.0).collect(),
        incarnation: format!("{:016x}", partition.incarnation),
    })
}

/// The partition that the state and its node's version describe.
pub fn decode_state(path: &str, data: &[u8], version: i32, replicas: Vec<BrokerId>) -> Result<Partition, LayoutError> {
    let json: StateJson = decode(path, data)?;
    let bad = |reason: &str| LayoutError { path: path.into(), reason: reason.into() };
    let incarnation =
        u64::from_str_radix(&json.incarnation, 16).map_err(|_| bad("incarnation is not a hexadecimal number"))?;
    let isr: Vec<BrokerId> = json.isr.into_iter().map(BrokerId).collect();
    if isr.is_empty() || isr.iter().any(|id| !replicas.contains(id)) {
        return Err(bad("isr is empty or names a broker that is no replica"));
    }
    Ok(Partition {
        leader: (json.leader >= 0).then_some(BrokerId(json.leader)),
        leader_epoch: LeaderEpoch(json.leader_epoch),
        partition_epoch: version,
        replicas,
        isr,
        incarnation,
    })
}

/// `/config/…`, version 1.
pub fn encode_config(settings: &BTreeMap<String, String>) -> Bytes {
    encode(&ConfigJson { version: 1, config: settings.clone() })
}

pub fn decode_config(path: &str, data: &[u8]) -> Result<BTreeMap<String, String>, LayoutError> {
    Ok(decode::<ConfigJson>(path, data)?.config)
}

/// `/controller`, version 2.
pub fn encode_controller(id: BrokerId, now_ms: i64) -> Bytes {
    encode(&ControllerJson { version: 2, brokerid: id.0, timestamp: now_ms.to_string() })
}

pub fn decode_controller(data: &[u8]) -> Result<BrokerId, LayoutError> {
    Ok(BrokerId(decode::<ControllerJson>(CONTROLLER, data)?.brokerid))
}

/// `/controller_epoch`: a decimal number.
pub fn decode_controller_epoch(data: &[u8]) -> Result<i32, LayoutError> {
    std::str::from_utf8(data)
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .ok_or_else(|| LayoutError { path: CONTROLLER_EPOCH.into(), reason: "not a decimal number".into() })
}

/// `/cluster/id`; its version is a text, as in Kafka.
pub fn encode_cluster_id(id: &str) -> Bytes {
    encode(&ClusterIdJson { version: "1".into(), id: id.into() })
}

pub fn decode_cluster_id(data: &[u8]) -> Result<String, LayoutError> {
    Ok(decode::<ClusterIdJson>(CLUSTER_ID, data)?.id)
}

/// `/latest_producer_id_block`, version 1: first and last id of the block handed out last (KIP-730).
pub fn encode_producer_ids(broker: BrokerId, first: i64, last: i64) -> Bytes {
    encode(&ProducerIdsJson {
        version: 1,
        broker: broker.0,
        block_start: first.to_string(),
        block_end: last.to_string(),
    })
}

/// The last id of the block.
pub fn decode_producer_ids(data: &[u8]) -> Result<i64, LayoutError> {
    let json: ProducerIdsJson = decode(PRODUCER_IDS, data)?;
    json.block_end
        .parse()
        .map_err(|_| LayoutError { path: PRODUCER_IDS.into(), reason: "block_end is not a number".into() })
}

#[derive(Serialize, Deserialize)]
struct BrokerJson {
    version: i32,
    host: Option<String>,
    port: u16,
    endpoints: Vec<String>,
    jmx_port: i32,
    timestamp: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rack: Option<String>,
    #[serde(default)]
    listener_security_protocol_map: BTreeMap<String, String>,
    #[serde(default)]
    features: BTreeMap<String, BTreeMap<String, i16>>,
}

#[derive(Serialize)]
struct TopicOut<P> {
    version: i32,
    partitions: P,
    adding_replicas: BTreeMap<i32, Vec<i32>>,
    removing_replicas: BTreeMap<i32, Vec<i32>>,
    topic_id: String,
}

#[derive(Deserialize)]
struct TopicIn {
    partitions: BTreeMap<i32, Vec<i32>>,
    topic_id: String,
}

/// `{"0":[1,2],…}`, without a map in between: it may have ten thousand entries.
struct Assignment<I>(I);

impl<'a, I: Iterator<Item = &'a [BrokerId]> + Clone> Serialize for Assignment<I> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (partition, replicas) in self.0.clone().enumerate() {
            let ids: Vec<i32> = replicas.iter().map(|id| id.0).collect();
            map.serialize_entry(&partition, &ids)?;
        }
        map.end()
    }
}

#[derive(Serialize, Deserialize)]
struct StateJson {
    controller_epoch: i32,
    leader: i32,
    version: i32,
    leader_epoch: i32,
    isr: Vec<i32>,
    incarnation: String,
}

#[derive(Serialize, Deserialize)]
struct ConfigJson {
    version: i32,
    #[serde(default)]
    config: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
struct ControllerJson {
    version: i32,
    brokerid: i32,
    timestamp: String,
}

#[derive(Serialize, Deserialize)]
struct ClusterIdJson {
    version: String,
    id: String,
}

#[derive(Serialize, Deserialize)]
struct ProducerIdsJson {
    version: i32,
    broker: i32,
    block_start: String,
    block_end: String,
}

fn encode(json: &impl Serialize) -> Bytes {
    serde_json::to_vec(json).expect("plain structures always have a JSON form").into()
}

fn decode<'a, T: Deserialize<'a>>(path: &str, data: &'a [u8]) -> Result<T, LayoutError> {
    serde_json::from_slice(data).map_err(|error| LayoutError { path: path.into(), reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(data: Bytes) -> String {
        String::from_utf8(data.to_vec()).unwrap()
    }

    #[test]
    fn nodes_look_as_kafka_writes_them() {
        let id = TopicId::parse("_LvAS3UTRtS2K4bh3nA0kA").unwrap();
        let replicas = [vec![BrokerId(0)], vec![BrokerId(1)]];
        let topic = encode_topic(id, replicas.iter().map(Vec::as_slice));
        assert_eq!(
            text(topic.clone()),
            r#"{"version":3,"partitions":{"0":[0],"1":[1]},"adding_replicas":{},"removing_replicas":{},"topic_id":"_LvAS3UTRtS2K4bh3nA0kA"}"#
        );
        assert_eq!(decode_topic("t", &topic).unwrap(), (id, replicas.to_vec()));
        let partition = Partition {
            leader: None,
            leader_epoch: LeaderEpoch(3),
            partition_epoch: 7,
            replicas: vec![BrokerId(0), BrokerId(1000)],
            isr: vec![BrokerId(1000)],
            incarnation: u64::MAX - 1,
        };
        let state = encode_state(&partition, 5);
        assert_eq!(
            text(state.clone()),
            r#"{"controller_epoch":5,"leader":-1,"version":1,"leader_epoch":3,"isr":[1000],"incarnation":"fffffffffffffffe"}"#
        );
        assert_eq!(decode_state("s", &state, 7, partition.replicas.clone()), Ok(partition));
        assert_eq!(text(encode_cluster_id("abc")), r#"{"version":"1","id":"abc"}"#);
        assert_eq!(
            text(encode_producer_ids(BrokerId(3), 0, 999)),
            r#"{"version":1,"broker":3,"block_start":"0","block_end":"999"}"#
        );
        assert_eq!(
            text(encode_config(&BTreeMap::from([("retention.ms".into(), "1".into())]))),
            r#"{"version":1,"config":{"retention.ms":"1"}}"#
        );
    }

    #[test]
    fn what_kafka_wrote_is_read() {
        let data = br#"{"features":{},"listener_security_protocol_map":{"PLAINTEXT":"PLAINTEXT"},"endpoints":["PLAINTEXT://h:9092"],"jmx_port":-1,"port":9092,"host":"h","version":5,"timestamp":"1700000000000"}"#;
        let broker = Broker { id: BrokerId(3), host: Some("h".into()), port: 9092, rack: None };
        assert_eq!(decode_broker(BrokerId(3), data), Ok(broker.clone()));
        assert_eq!(decode_broker(BrokerId(3), &encode_broker(&broker, 5)), Ok(broker));
        assert_eq!(
            decode_controller(br#"{"version":2,"brokerid":1,"timestamp":"5","kraftControllerEpoch":-1}"#),
            Ok(BrokerId(1))
        );
        assert_eq!(decode_controller_epoch(b"42"), Ok(42));
    }

    #[test]
    fn nonsense_is_refused_with_its_path() {
        let error = decode_topic("t", br#"{"version":3,"partitions":{"1":[0]},"topic_id":"_LvAS3UTRtS2K4bh3nA0kA"}"#);
        assert_eq!(error.unwrap_err().path, "/brokers/topics/t");
        let state = br#"{"controller_epoch":5,"leader":0,"version":1,"leader_epoch":3,"isr":[7],"incarnation":"1"}"#;
        assert!(decode_state("/s", state, 0, vec![BrokerId(0)]).unwrap_err().reason.contains("no replica"));
        assert!(decode_controller_epoch(b"x").is_err());
    }
}
