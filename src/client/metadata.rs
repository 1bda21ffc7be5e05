//! What a cluster says about itself: brokers, topics, partitions and their leaders.

use super::address::HostPort;
use crate::base::ids::{TopicId, Uuid};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{MetadataResponsePartition, MetadataResponseTopic};
use kafka_protocol::messages::{MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use std::collections::BTreeMap;

/// Which topics to ask about.
#[derive(Clone, Debug)]
pub enum Topics {
    /// Brokers only.
    None,
    All,
    Named(Vec<String>),
}

#[derive(Clone, Debug)]
pub struct BrokerInfo {
    pub id: i32,
    pub address: HostPort,
    pub rack: Option<String>,
}

#[derive(Clone, Debug)]
pub struct TopicInfo {
    pub name: String,
    /// None where the broker is older than topic ids (KIP-516).
    pub id: Option<TopicId>,
    pub internal: bool,
    pub error: Option<ResponseError>,
    /// By index.
    pub partitions: Vec<PartitionInfo>,
}

#[derive(Clone, Debug)]
pub struct PartitionInfo {
    pub index: i32,
    pub error: Option<ResponseError>,
    /// None while there is no leader.
    pub leader: Option<i32>,
    /// None where the broker does not tell.
    pub leader_epoch: Option<i32>,
    pub replicas: Vec<i32>,
    pub isr: Vec<i32>,
    pub offline: Vec<i32>,
}

#[derive(Clone, Debug, Default)]
pub struct Metadata {
    pub cluster_id: Option<String>,
    pub controller: Option<i32>,
    pub brokers: BTreeMap<i32, BrokerInfo>,
    /// By name.
    pub topics: BTreeMap<String, TopicInfo>,
}

/// The request for these topics. Below version 4 a request that names topics may create them, so that
/// `create == false` asks for all topics there.
pub fn request(topics: &Topics, create: bool, version: i16) -> MetadataRequest {
    let named = match topics {
        Topics::None if version >= 1 => Some(Vec::new()),
        Topics::Named(names) if create || version >= 4 => {
            let topic = |name: &String| {
                let name = TopicName(StrBytes::from_string(name.clone()));
                MetadataRequestTopic::default().with_name(Some(name))
            };
            Some(names.iter().map(topic).collect())
        }
        // In version 0 an empty list, and from version 1 on null, means all topics.
        _ if version == 0 => Some(Vec::new()),
        _ => None,
    };
    let request = MetadataRequest::default().with_topics(named);
    if version >= 4 { request.with_allow_auto_topic_creation(create) } else { request }
}

/// Reads an answer; entries without a usable name or address are left out.
pub fn read(response: &MetadataResponse) -> Metadata {
    let brokers = response.brokers.iter().filter_map(|b| {
        let address = HostPort { host: b.host.to_string(), port: u16::try_from(b.port).ok()? };
        let rack = b.rack.as_ref().map(|r| r.to_string());
        Some((b.node_id.0, BrokerInfo { id: b.node_id.0, address, rack }))
    });
    Metadata {
        cluster_id: response.cluster_id.as_ref().map(|id| id.to_string()),
        controller: Some(response.controller_id.0).filter(|id| *id >= 0),
        brokers: brokers.collect(),
        topics: response.topics.iter().filter_map(read_topic).map(|t| (t.name.clone(), t)).collect(),
    }
}

fn read_topic(topic: &MetadataResponseTopic) -> Option<TopicInfo> {
    let mut partitions: Vec<PartitionInfo> = topic.partitions.iter().map(read_partition).collect();
    partitions.sort_by_key(|p| p.index);
    Some(TopicInfo {
        name: topic.name.as_ref()?.to_string(),
        id: Some(topic.topic_id).filter(|id| *id != Uuid::nil()).map(TopicId),
        internal: topic.is_internal,
        error: ResponseError::try_from_code(topic.error_code),
        partitions,
    })
}

fn read_partition(p: &MetadataResponsePartition) -> PartitionInfo {
    PartitionInfo {
        index: p.partition_index,
        error: ResponseError::try_from_code(p.error_code),
        leader: Some(p.leader_id.0).filter(|id| *id >= 0),
        leader_epoch: Some(p.leader_epoch).filter(|e| *e >= 0),
        replicas: p.replica_nodes.iter().map(|b| b.0).collect(),
        isr: p.isr_nodes.iter().map(|b| b.0).collect(),
        offline: p.offline_replicas.iter().map(|b| b.0).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asking_never_creates_a_topic_by_accident() {
        let named = Topics::Named(vec!["t".to_owned()]);
        let modern = request(&named, false, 12);
        assert_eq!(modern.topics.as_ref().map(Vec::len), Some(1));
        assert!(!modern.allow_auto_topic_creation);
        assert!(request(&named, false, 1).topics.is_none(), "an old broker is asked for all topics instead");
        assert_eq!(request(&Topics::None, false, 12).topics.map(|t| t.len()), Some(0));
    }
}
