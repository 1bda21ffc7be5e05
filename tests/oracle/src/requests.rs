//! Short ways to make requests in any version: a field that a version does not have is left out.

use crate::pair::Side;
use bytes::Bytes;
use kafka_protocol::messages::{
    ApiVersionsRequest, BrokerId, CreateTopicsRequest, DeleteTopicsRequest, FetchRequest, ListOffsetsRequest,
    MetadataRequest, ProduceRequest, TopicName, create_topics_request::*, delete_topics_request::DeleteTopicState,
    fetch_request::*, list_offsets_request::*, metadata_request::MetadataRequestTopic, produce_request::*,
};
use kafka_protocol::protocol::StrBytes;

/// Long enough for a broker on a busy machine, short enough for a test.
pub const TIMEOUT_MS: i32 = 10_000;

pub fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

pub fn topic_name(name: &str) -> TopicName {
    TopicName(text(name))
}

pub fn api_versions() -> ApiVersionsRequest {
    ApiVersionsRequest::default().with_client_software_name(text("oracle")).with_client_software_version(text("1.0"))
}

/// Metadata of these topics, nothing created.
pub fn metadata(version: i16, topics: &[&str]) -> MetadataRequest {
    let topic = |name: &&str| MetadataRequestTopic::default().with_name(Some(topic_name(name)));
    let request = MetadataRequest::default().with_topics(Some(topics.iter().map(topic).collect()));
    if version >= 4 { request.with_allow_auto_topic_creation(false) } else { request }
}

pub fn topic(name: &str, partitions: i32, configs: &[(&str, &str)]) -> CreatableTopic {
    let config = |&(name, value): &(&str, &str)| {
        CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)))
    };
    CreatableTopic::default()
        .with_name(topic_name(name))
        .with_num_partitions(partitions)
        .with_replication_factor(1)
        .with_configs(configs.iter().map(config).collect())
}

pub fn create(topics: Vec<CreatableTopic>) -> CreateTopicsRequest {
    CreateTopicsRequest::default().with_topics(topics).with_timeout_ms(TIMEOUT_MS)
}

pub fn delete(version: i16, topics: &[&str]) -> DeleteTopicsRequest {
    let request = DeleteTopicsRequest::default().with_timeout_ms(TIMEOUT_MS);
    if version < 6 {
        return request.with_topic_names(topics.iter().map(|name| topic_name(name)).collect());
    }
    let state = |name: &&str| DeleteTopicState::default().with_name(Some(topic_name(name)));
    request.with_topics(topics.iter().map(state).collect())
}

pub fn assignment(partition: i32, brokers: &[i32]) -> CreatableReplicaAssignment {
    CreatableReplicaAssignment::default()
        .with_partition_index(partition)
        .with_broker_ids(brokers.iter().map(|&id| BrokerId(id)).collect())
}

/// Produce to partitions of one topic.
pub fn produce(acks: i16, topic: &str, partitions: Vec<(i32, Option<Bytes>)>) -> ProduceRequest {
    let data = partitions
        .into_iter()
        .map(|(index, records)| PartitionProduceData::default().with_index(index).with_records(records));
    let topic = TopicProduceData::default().with_name(topic_name(topic)).with_partition_data(data.collect());
    ProduceRequest::default().with_acks(acks).with_timeout_ms(TIMEOUT_MS).with_topic_data(vec![topic])
}

/// One partition in a Fetch request.
#[derive(Clone, Debug)]
pub struct FetchFrom {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    pub max_bytes: i32,
    pub epoch: i32,
    pub last_fetched_epoch: i32,
}

pub fn from(topic: &str, partition: i32, offset: i64) -> FetchFrom {
    FetchFrom { topic: topic.to_owned(), partition, offset, max_bytes: 1 << 20, epoch: -1, last_fetched_epoch: -1 }
}

/// A Fetch outside sessions that does not wait.
pub fn fetch(side: &Side, version: i16, partitions: &[FetchFrom]) -> FetchRequest {
    let mut topics: Vec<FetchTopic> = Vec::new();
    for from in partitions {
        let mut partition = FetchPartition::default()
            .with_partition(from.partition)
            .with_fetch_offset(from.offset)
            .with_partition_max_bytes(from.max_bytes);
        if version >= 9 {
            partition.current_leader_epoch = from.epoch;
        }
        if version >= 12 {
            partition.last_fetched_epoch = from.last_fetched_epoch;
        }
        if version >= 5 {
            partition.log_start_offset = -1;
        }
        let topic = if version >= 13 {
            FetchTopic::default().with_topic_id(side.topic_id(&from.topic))
        } else {
            FetchTopic::default().with_topic(topic_name(&from.topic))
        };
        match topics.last_mut().filter(|last| last.topic == topic.topic && last.topic_id == topic.topic_id) {
            Some(last) => last.partitions.push(partition),
            None => topics.push(topic.with_partitions(vec![partition])),
        }
    }
    let request =
        FetchRequest::default().with_max_wait_ms(0).with_min_bytes(0).with_max_bytes(50 << 20).with_topics(topics);
    let request = if version >= 7 { request.with_session_id(0).with_session_epoch(-1) } else { request };
    if version < 15 { request.with_replica_id(BrokerId(-1)) } else { request }
}

/// ListOffsets of partitions with (partition, timestamp, current leader epoch).
pub fn list_offsets(version: i16, topic: &str, partitions: &[(i32, i64, i32)]) -> ListOffsetsRequest {
    let partition = |&(index, timestamp, epoch): &(i32, i64, i32)| {
        let partition = ListOffsetsPartition::default().with_partition_index(index).with_timestamp(timestamp);
        if version >= 4 { partition.with_current_leader_epoch(epoch) } else { partition }
    };
    let topic = ListOffsetsTopic::default()
        .with_name(topic_name(topic))
        .with_partitions(partitions.iter().map(partition).collect());
    ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic])
}
