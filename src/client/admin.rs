//! Administration of topics: create, delete, add partitions, settings, sizes.

use super::cluster::{Cluster, Target};
use super::error::ClientError;
use crate::base::ids::{TopicId, Uuid};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::{
    BrokerId, CreatePartitionsRequest, CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest,
    DescribeConfigsRequest, DescribeLogDirsRequest, IncrementalAlterConfigsRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use std::collections::BTreeMap;

/// A topic to be made. None leaves a number to the broker's defaults (KIP-464).
#[derive(Clone, Debug, Default)]
pub struct NewTopic {
    pub name: String,
    pub partitions: Option<i32>,
    pub replication_factor: Option<i16>,
    /// Broker ids of each partition, the preferred leader first; then the two numbers above must be None.
    pub assignments: Vec<Vec<i32>>,
    pub configs: Vec<(String, String)>,
}

/// What the broker said it made; None where it is too old to tell (before CreateTopics 5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedTopic {
    pub id: Option<TopicId>,
    pub partitions: Option<i32>,
    pub replication_factor: Option<i16>,
}

/// Where a setting's value comes from (DescribeConfigs' `config_source`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigSource {
    Topic,
    DynamicBroker,
    StaticBroker,
    Default,
    Other(i8),
}

#[derive(Clone, Debug)]
pub struct ConfigEntry {
    pub name: String,
    /// None for sensitive values.
    pub value: Option<String>,
    pub source: ConfigSource,
    pub read_only: bool,
}

/// One replica's bytes on disk.
#[derive(Clone, Debug)]
pub struct ReplicaSize {
    pub topic: String,
    pub partition: i32,
    pub broker: i32,
    pub log_dir: String,
    pub bytes: i64,
}

/// Codes after which an administrative request is worth sending again. A time-out is not among them: the work goes on
/// in the cluster, and a second attempt would be told "already exists".
const ADMIN_RETRIES: [ResponseError; 3] =
    [ResponseError::NotController, ResponseError::ThrottlingQuotaExceeded, ResponseError::LeaderNotAvailable];

const RESOURCE_TOPIC: i8 = 2;
const RESOURCE_BROKER: i8 = 4;

const CONFIG_SET: i8 = 0;
const CONFIG_DELETE: i8 = 1;

/// Creates one topic, or with `validate_only` just asks whether it could be created.
pub fn create_topic(cluster: &mut Cluster, topic: &NewTopic, validate_only: bool) -> Result<CreatedTopic, ClientError> {
    let timeout_ms = request_timeout_ms(cluster);
    let build = |version: i16| {
        // Brokers before version 4 know no defaults for these: one partition, one replica then, as Kafka's own are.
        let default = if version >= 4 || !topic.assignments.is_empty() { -1 } else { 1 };
        let assignment = |(index, brokers): (usize, &Vec<i32>)| {
            CreatableReplicaAssignment::default()
                .with_partition_index(index as i32)
                .with_broker_ids(brokers.iter().map(|id| BrokerId(*id)).collect())
        };
        let config = |(name, value): &(String, String)| {
            CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)))
        };
        let creatable = CreatableTopic::default()
            .with_name(topic_name(&topic.name))
            .with_num_partitions(topic.partitions.unwrap_or(default))
            .with_replication_factor(topic.replication_factor.unwrap_or(default as i16))
            .with_assignments(topic.assignments.iter().enumerate().map(assignment).collect())
            .with_configs(topic.configs.iter().map(config).collect());
        CreateTopicsRequest::default()
            .with_topics(vec![creatable])
            .with_timeout_ms(timeout_ms)
            .with_validate_only(validate_only)
    };
    let what = format!("create topic {}", topic.name);
    let check = |answer: &CreateTopicsResponse| {
        let result = only(&answer.topics, &what)?;
        settled(&what, result.error_code, result.error_message.as_deref())
    };
    let answer = cluster.call(Target::Controller, build, check)?;
    let made = only(&answer.topics, &what)?;
    Ok(CreatedTopic {
        id: Some(made.topic_id).filter(|id| *id != Uuid::nil()).map(TopicId),
        partitions: Some(made.num_partitions).filter(|n| *n > 0),
        replication_factor: Some(made.replication_factor).filter(|n| *n > 0),
    })
}

pub fn delete_topic(cluster: &mut Cluster, name: &str) -> Result<(), ClientError> {
    let timeout_ms = request_timeout_ms(cluster);
    let build = |version: i16| {
        let request = DeleteTopicsRequest::default().with_timeout_ms(timeout_ms);
        match version >= 6 {
            true => request.with_topics(vec![DeleteTopicState::default().with_name(Some(topic_name(name)))]),
            false => request.with_topic_names(vec![topic_name(name)]),
        }
    };
    let what = format!("delete topic {name}");
    cluster.call(Target::Controller, build, |answer: &kafka_protocol::messages::DeleteTopicsResponse| {
        let result = only(&answer.responses, &what)?;
        settled(&what, result.error_code, result.error_message.as_deref())
    })?;
    Ok(())
}

/// Raises the number of partitions to `count`.
pub fn add_partitions(cluster: &mut Cluster, name: &str, count: i32) -> Result<(), ClientError> {
    let timeout_ms = request_timeout_ms(cluster);
    let topic = CreatePartitionsTopic::default().with_name(topic_name(name)).with_count(count).with_assignments(None);
    let request = CreatePartitionsRequest::default().with_topics(vec![topic]).with_timeout_ms(timeout_ms);
    let what = format!("add partitions to topic {name}");
    cluster.call(
        Target::Controller,
        |_| request.clone(),
        |answer| {
            let result = only(&answer.results, &what)?;
            settled(&what, result.error_code, result.error_message.as_deref())
        },
    )?;
    Ok(())
}

/// Sets and unsets settings of a topic, leaving the others as they are (KIP-339).
pub fn alter_topic_configs(
    cluster: &mut Cluster,
    name: &str,
    set: &[(String, String)],
    unset: &[String],
) -> Result<(), ClientError> {
    alter_configs(cluster, (RESOURCE_TOPIC, name), (set, unset), &format!("alter settings of topic {name}"))
}

/// Sets a dynamic setting of all brokers (KIP-226).
pub fn alter_broker_defaults(cluster: &mut Cluster, key: &str, value: &str) -> Result<(), ClientError> {
    let set = [(key.to_owned(), value.to_owned())];
    alter_configs(cluster, (RESOURCE_BROKER, ""), (&set, &[]), &format!("set {key} of all brokers"))
}

fn alter_configs(
    cluster: &mut Cluster,
    (kind, name): (i8, &str),
    (set, unset): (&[(String, String)], &[String]),
    what: &str,
) -> Result<(), ClientError> {
    let sets = set.iter().map(|(key, value)| {
        AlterableConfig::default().with_name(text(key)).with_config_operation(CONFIG_SET).with_value(Some(text(value)))
    });
    let unsets = unset.iter().map(|key| {
        AlterableConfig::default().with_name(text(key)).with_config_operation(CONFIG_DELETE).with_value(None)
    });
    let resource = AlterConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configs(sets.chain(unsets).collect());
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    cluster.call(
        Target::Controller,
        |_| request.clone(),
        |answer| {
            let result = only(&answer.responses, what)?;
            settled(what, result.error_code, result.error_message.as_deref())
        },
    )?;
    Ok(())
}

/// Each topic's settings with where they come from, by topic.
pub fn topic_configs(
    cluster: &mut Cluster,
    names: &[String],
) -> Result<BTreeMap<String, Vec<ConfigEntry>>, ClientError> {
    let resource = |name: &String| {
        DescribeConfigsResource::default()
            .with_resource_type(RESOURCE_TOPIC)
            .with_resource_name(text(name))
            .with_configuration_keys(None)
    };
    let request = DescribeConfigsRequest::default().with_resources(names.iter().map(resource).collect());
    let answer = cluster.call(
        Target::Any,
        |_| request.clone(),
        |answer| {
            answer.results.iter().try_for_each(|r| {
                let what = format!("settings of topic {}", &*r.resource_name);
                settled(&what, r.error_code, r.error_message.as_deref())
            })
        },
    )?;
    let entries = answer.results.into_iter().map(|result| {
        let configs = result.configs.into_iter().map(|c| ConfigEntry {
            name: c.name.to_string(),
            value: c.value.map(|v| v.to_string()),
            source: config_source(c.config_source),
            read_only: c.read_only,
        });
        (result.resource_name.to_string(), configs.collect())
    });
    Ok(entries.collect())
}

/// Whether missing topics are created when they are asked for; None where the broker does not tell.
pub fn creates_topics(cluster: &mut Cluster) -> Option<bool> {
    let broker = *cluster.known().brokers.keys().next()?;
    let resource = DescribeConfigsResource::default()
        .with_resource_type(RESOURCE_BROKER)
        .with_resource_name(text(&broker.to_string()))
        .with_configuration_keys(Some(vec![text("auto.create.topics.enable")]));
    let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
    let answer = cluster.try_call(Target::Broker(broker), |_| request.clone()).ok()?;
    let entry = answer.results.first()?.configs.iter().find(|entry| &*entry.name == "auto.create.topics.enable")?;
    entry.value.as_ref()?.parse().ok()
}

/// The sizes of these topics' replicas on every broker; a broker that does not answer leaves its replicas out.
pub fn replica_sizes(cluster: &mut Cluster, topics: &[(String, Vec<i32>)]) -> Vec<ReplicaSize> {
    let wanted: Vec<DescribableLogDirTopic> = topics
        .iter()
        .map(|(name, partitions)| {
            DescribableLogDirTopic::default().with_topic(topic_name(name)).with_partitions(partitions.clone())
        })
        .collect();
    let brokers: Vec<i32> = cluster.known().brokers.keys().copied().collect();
    let mut sizes = Vec::new();
    for broker in brokers {
        let request = DescribeLogDirsRequest::default().with_topics(Some(wanted.clone()));
        let Ok(answer) = cluster.try_call(Target::Broker(broker), |_| request.clone()) else { continue };
        for dir in answer.results.iter().filter(|dir| dir.error_code == 0) {
            for topic in &dir.topics {
                sizes.extend(topic.partitions.iter().filter(|p| !p.is_future_key).map(|p| ReplicaSize {
                    topic: topic.name.to_string(),
                    partition: p.partition_index,
                    broker,
                    log_dir: dir.log_dir.to_string(),
                    bytes: p.partition_size,
                }));
            }
        }
    }
    sizes
}

fn settled(what: &str, code: i16, message: Option<&str>) -> Result<(), ClientError> {
    match ClientError::from_code(what, code, message) {
        None => Ok(()),
        Some(error) if error.code() == Some(ResponseError::RequestTimedOut) => Err(ClientError::Invalid(format!(
            "{what}: the cluster took the request but did not finish in time; it may still do so: \
             look with `corelog topic describe` before trying again"
        ))),
        Some(error) => Err(error.retriable_only_for(&ADMIN_RETRIES)),
    }
}

fn only<'a, T>(results: &'a [T], what: &str) -> Result<&'a T, ClientError> {
    match results {
        [one] => Ok(one),
        other => Err(ClientError::Invalid(format!("{what}: the broker answered for {} topics, not one", other.len()))),
    }
}

fn config_source(source: i8) -> ConfigSource {
    match source {
        1 => ConfigSource::Topic,
        2 | 3 => ConfigSource::DynamicBroker,
        4 => ConfigSource::StaticBroker,
        5 => ConfigSource::Default,
        other => ConfigSource::Other(other),
    }
}

fn request_timeout_ms(cluster: &Cluster) -> i32 {
    i32::try_from(cluster.options().timeouts.request.as_millis()).unwrap_or(i32::MAX)
}

pub(crate) fn topic_name(name: &str) -> TopicName {
    TopicName(text(name))
}

pub(crate) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}
