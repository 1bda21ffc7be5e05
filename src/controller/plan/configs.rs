//! Altering settings of topics and brokers, at once (AlterConfigs) or one by one (KIP-339).

use super::super::handle::{AdminError, AdminResult, ConfigChange, ConfigOp, ConfigResource};
use super::super::layout;
use super::{Change, Context, refuse};
use crate::base::config::alter::check_broker_settings;
use crate::base::config::key::{Key, Type};
use crate::base::config::keys::{broker_key, topic_key};
use crate::base::config::{ConfigError, TopicConfig};
use crate::base::ids::{BrokerId, NodeId};
use crate::base::limits::STORE_REQUEST_BYTES_MAX;
use crate::cluster::edit::Edit;
use crate::coordination::Op;
use kafka_protocol::ResponseError;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

type Texts = BTreeMap<String, String>;

/// Both kinds of AlterConfigs: one answer a resource, in the order asked.
pub fn alter(context: &Context, changes: &[ConfigChange], validate_only: bool) -> (Vec<AdminResult<()>>, Change) {
    let mut counts: HashMap<&ConfigResource, usize> = HashMap::new();
    changes.iter().for_each(|change| *counts.entry(&change.resource).or_default() += 1);
    let mut done = Change::default();
    let answers = changes
        .iter()
        .map(|wanted| {
            if counts[&wanted.resource] > 1 {
                return refuse(ResponseError::InvalidRequest, "Each resource must appear at most once.");
            }
            let mut names = BTreeSet::new();
            if !wanted.ops.iter().all(|(name, _)| names.insert(name)) {
                return refuse(ResponseError::InvalidRequest, "Error due to duplicate config keys");
            }
            let (op, edit) = match &wanted.resource {
                ConfigResource::Topic(name) => alter_topic(context, name, wanted)?,
                ConfigResource::Broker(name) => alter_broker(context, name, wanted)?,
            };
            if op.request_bytes() > STORE_REQUEST_BYTES_MAX / 2 {
                return refuse(ResponseError::InvalidRequest, "The settings of one resource take too many bytes.");
            }
            if !validate_only {
                done.ops.push(op);
                done.edits.push(edit);
            }
            Ok(())
        })
        .collect();
    (answers, done)
}

fn alter_topic(context: &Context, name: &str, wanted: &ConfigChange) -> AdminResult<(Op, Edit)> {
    if name.is_empty() {
        return refuse(ResponseError::InvalidRequest, "Default topic resources are not allowed.");
    }
    let topic = context.image.topic(name);
    let settings = altered(topic.map(|topic| &topic.settings), wanted, topic_key)?;
    let Some(topic) = topic else {
        return refuse(ResponseError::UnknownTopicOrPartition, format!("The topic '{name}' does not exist."));
    };
    TopicConfig::resolve(context.config, &settings).map_err(|error| topic_error(name, &error))?;
    let op = Op::set(layout::topic_config_path(name), layout::encode_config(&settings), None);
    let mut topic = (**topic).clone();
    topic.settings = settings;
    Ok((op, Edit::PutTopic(Arc::new(topic))))
}

fn alter_broker(context: &Context, name: &str, wanted: &ConfigChange) -> AdminResult<(Op, Edit)> {
    let node = node_of(context, name)?;
    let present = match node {
        Some(node) => context.image.node_settings.get(&node),
        None => Some(&context.image.broker_defaults),
    };
    let settings = altered(present, wanted, broker_key)?;
    check_broker(context, node, &settings)?;
    // The node is there since the start: the driver sees to it.
    let op = Op::set(layout::broker_config_path(node), layout::encode_config(&settings), None);
    let edit = match node {
        Some(node) => Edit::NodeSettings(node, settings),
        None => Edit::BrokerDefaults(settings),
    };
    Ok((op, edit))
}

/// The node whose settings are meant; None for the default of all. Settings are of a node, so the id of any of its
/// shards will do.
fn node_of(context: &Context, name: &str) -> AdminResult<Option<NodeId>> {
    if name.is_empty() {
        return Ok(None);
    }
    let Ok(id) = name.parse::<i32>() else {
        return refuse(ResponseError::InvalidRequest, format!("Node id must be an integer, but it is: {name}"));
    };
    let own = |id: &&BrokerId| id.node() == context.node;
    if context.image.brokers.keys().any(|broker| own(&broker) && broker.0 == id) {
        return Ok(Some(context.node));
    }
    let expected: Vec<String> = context.image.brokers.keys().filter(own).map(BrokerId::to_string).collect();
    refuse(
        ResponseError::InvalidRequest,
        format!("Unexpected broker id, expected {}, but received {name}", expected.join(" or ")),
    )
}

/// The settings after the change. Names are checked only where their type matters; the rest follows.
fn altered(
    present: Option<&Texts>,
    wanted: &ConfigChange,
    key_of: fn(&str) -> Option<&'static Key>,
) -> AdminResult<Texts> {
    let mut settings = match present {
        Some(present) if !wanted.replace_all => present.clone(),
        _ => Texts::new(),
    };
    for (name, op) in &wanted.ops {
        match op {
            ConfigOp::Set(value) => {
                settings.insert(name.clone(), value.clone());
            }
            ConfigOp::Delete => {
                settings.remove(name);
            }
            ConfigOp::Append(value) => {
                let old = list_of(&settings, name, "append", key_of)?;
                let known: HashSet<&str> = old.iter().copied().collect();
                let new = value.split(',').filter(|part| !known.contains(part));
                let list: Vec<&str> = old.iter().copied().chain(new).collect();
                settings.insert(name.clone(), list.join(","));
            }
            ConfigOp::Subtract(value) => {
                let mut list = list_of(&settings, name, "subtract", key_of)?;
                // As often as it is named, from the front.
                let mut gone: HashMap<&str, usize> = HashMap::new();
                value.split(',').for_each(|part| *gone.entry(part).or_default() += 1);
                list.retain(|part| match gone.get_mut(part) {
                    Some(times @ 1..) => {
                        *times -= 1;
                        false
                    }
                    _ => true,
                });
                settings.insert(name.clone(), list.join(","));
            }
        }
    }
    Ok(settings)
}

/// What a list holds now: the resource's own value, else the table's default (not the broker's, as in Kafka).
fn list_of<'a>(
    settings: &'a Texts,
    name: &str,
    action: &str,
    key_of: fn(&str) -> Option<&'static Key>,
) -> AdminResult<Vec<&'a str>> {
    let Some(key) = key_of(name) else {
        return refuse(ResponseError::InvalidConfig, format!("Unknown config name: {name}"));
    };
    if key.kind != Type::List {
        return refuse(
            ResponseError::InvalidConfig,
            format!("Config value {action} is not allowed for config key: {name}"),
        );
    }
    let text = settings.get(name).map(String::as_str).or(key.default).unwrap_or_default();
    Ok(text.split(',').filter(|part| !part.is_empty()).collect())
}

/// A failed check is INVALID_REQUEST (KAFKA-13609).
fn check_broker(context: &Context, node: Option<NodeId>, settings: &Texts) -> AdminResult<()> {
    check_broker_settings(context.config, settings, node.is_none())
        .or_else(|error| refuse(ResponseError::InvalidRequest, error.to_string()))
}

fn topic_error(topic: &str, error: &ConfigError) -> AdminError {
    let message = if error.names_resource() {
        format!("Invalid config value for resource ConfigResource(type=TOPIC, name='{topic}'): {error}")
    } else {
        error.to_string()
    };
    AdminError { code: ResponseError::InvalidConfig, message: Some(message) }
}

#[cfg(test)]
#[path = "configs_tests.rs"]
mod tests;
