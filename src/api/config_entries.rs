//! What the APIs about settings have in common: the kinds of resources, and entries as the wire has them.

use super::admin::refusal;
use super::context::ShardContext;
use crate::base::config::describe::{ConfigEntry, ConfigSynonym};
use crate::base::ids::BrokerId;
use crate::controller::handle::AdminError;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_topics_response::CreatableTopicConfigs;
use kafka_protocol::messages::describe_configs_response::{DescribeConfigsResourceResult, DescribeConfigsSynonym};
use kafka_protocol::protocol::StrBytes;

/// What settings belong to, by Kafka's numbers (`ConfigResource.Type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResourceType {
    Topic,
    Broker,
    BrokerLogger,
    ClientMetrics,
}

impl ResourceType {
    pub fn of(wire: i8) -> Option<Self> {
        match wire {
            2 => Some(ResourceType::Topic),
            4 => Some(ResourceType::Broker),
            8 => Some(ResourceType::BrokerLogger),
            16 => Some(ResourceType::ClientMetrics),
            _ => None,
        }
    }
}

/// Why the levels of loggers are neither told nor changed.
pub const NO_LOGGERS: &str = "The log levels of this broker are set when it starts (RUST_LOG)";

/// An INVALID_REQUEST.
pub fn invalid(message: impl Into<String>) -> AdminError {
    refusal(ResponseError::InvalidRequest, message)
}

/// Whether `name` is the id of a shard of this node: settings are the node's, so any of them may be asked.
/// None if it is not a number.
pub fn is_of_this_node(context: &ShardContext, name: &str) -> Option<bool> {
    let id = BrokerId(name.parse().ok()?);
    Some(id == context.broker || (id.0 >= 0 && id.node() == context.node && context.image().brokers.contains_key(&id)))
}

/// A setting as DescribeConfigs answers it.
pub fn described(entry: ConfigEntry, synonyms: bool, documentation: bool) -> DescribeConfigsResourceResult {
    let synonym = |synonym: ConfigSynonym| {
        DescribeConfigsSynonym::default()
            .with_name(StrBytes::from_string(synonym.name))
            .with_value(synonym.value.map(StrBytes::from_string))
            .with_source(synonym.source as i8)
    };
    let synonyms = if synonyms { entry.synonyms.into_iter().map(synonym).collect() } else { Vec::new() };
    DescribeConfigsResourceResult::default()
        .with_name(StrBytes::from_string(entry.name))
        .with_value(entry.value.map(StrBytes::from_string))
        .with_read_only(entry.read_only)
        .with_config_source(entry.source as i8)
        .with_is_sensitive(entry.is_sensitive)
        .with_synonyms(synonyms)
        .with_config_type(entry.config_type)
        .with_documentation(entry.documentation.filter(|_| documentation).map(StrBytes::from_static_str))
}

/// A setting as CreateTopics answers it (KIP-525).
pub fn created(entry: ConfigEntry) -> CreatableTopicConfigs {
    CreatableTopicConfigs::default()
        .with_name(StrBytes::from_string(entry.name))
        .with_value(entry.value.map(StrBytes::from_string))
        .with_read_only(entry.read_only)
        .with_config_source(entry.source as i8)
        .with_is_sensitive(entry.is_sensitive)
}
