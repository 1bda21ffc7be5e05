//! What AlterConfigs and IncrementalAlterConfigs have in common: the checks that need no knowledge of settings, in
//! Kafka's order and words, and the way through the controller, which checks the settings themselves.

use super::admin::{Patience, Pending};
use super::config_entries::{NO_LOGGERS, ResourceType, invalid, is_of_this_node};
use super::context::ShardContext;
use crate::controller::handle::{AdminError, AdminResult, ConfigChange, ConfigOp, ConfigResource};
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::protocol::StrBytes;
use std::collections::{HashMap, HashSet};

/// What a change does, by Kafka's numbers (`AlterConfigOp.OpType`).
pub mod operation {
    pub const SET: i8 = 0;
    pub const DELETE: i8 = 1;
    pub const APPEND: i8 = 2;
    pub const SUBTRACT: i8 = 3;
}

/// Which of the two APIs is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// AlterConfigs: what is not named goes back to its default.
    Replace,
    /// IncrementalAlterConfigs.
    Incremental,
}

/// The changes of one request on their way through the control plane.
pub struct Alteration {
    resources: Vec<AlterConfigsResource>,
    /// Why a resource is refused at once; one item a resource.
    refusals: Vec<Option<AdminError>>,
    pending: Option<Pending<()>>,
}

/// What is answered about one resource.
pub struct Altered {
    pub resource_type: i8,
    pub resource_name: StrBytes,
    pub error: Option<AdminError>,
}

impl Alteration {
    /// Checks the request and sends what is left of it. Whether a broker's id is right is for the controller to say.
    pub fn start(
        context: &ShardContext,
        mode: Mode,
        resources: Vec<AlterConfigsResource>,
        validate_only: bool,
    ) -> Self {
        let mut appearances = HashMap::new();
        for resource in &resources {
            *appearances.entry(identity(context, resource)).or_insert(0) += 1;
        }
        let mut changes = Vec::new();
        let mut check = |resource: &AlterConfigsResource| {
            if appearances.get(&identity(context, resource)) > Some(&1) {
                return Some(invalid("Each resource must appear at most once."));
            }
            change(context, mode, resource).map(|change| changes.push(change)).err()
        };
        let refusals: Vec<_> = resources.iter().map(&mut check).collect();
        let pending = (!changes.is_empty()).then(|| {
            let control = context.control.clone();
            Pending::send(Patience::DEFAULT, changes.len(), async move {
                control.alter_configs(changes, validate_only).await
            })
        });
        Alteration { resources, refusals, pending }
    }

    /// One answer a resource, in the order asked.
    pub async fn results(self) -> Vec<Altered> {
        let results = match self.pending {
            Some(pending) => pending.results().await,
            None => Vec::new(),
        };
        let mut results = results.into_iter();
        let altered = |(resource, refused): (AlterConfigsResource, Option<AdminError>)| Altered {
            resource_type: resource.resource_type,
            resource_name: resource.resource_name,
            error: refused.or_else(|| results.next().and_then(Result::err)),
        };
        self.resources.into_iter().zip(self.refusals).map(altered).collect()
    }
}

/// What tells a resource from others: the settings of a node have as many names as the node has shards.
fn identity<'a>(context: &ShardContext, resource: &'a AlterConfigsResource) -> (i8, Option<&'a str>) {
    let name = resource.resource_name.as_str();
    let is_this_node = ResourceType::of(resource.resource_type) == Some(ResourceType::Broker)
        && is_of_this_node(context, name) == Some(true);
    (resource.resource_type, (!is_this_node).then_some(name))
}

fn change(context: &ShardContext, mode: Mode, resource: &AlterConfigsResource) -> AdminResult<ConfigChange> {
    let mut names = HashSet::new();
    if !resource.configs.iter().all(|config| names.insert(&config.name)) {
        return Err(invalid("Error due to duplicate config keys"));
    }
    let is_null = |config: &&AlterableConfig| config.config_operation != operation::DELETE && config.value.is_none();
    let nulls: Vec<_> = resource.configs.iter().filter(is_null).map(|config| config.name.as_str()).collect();
    if !nulls.is_empty() {
        return Err(invalid(format!("Null value not supported for : {}", nulls.join(", "))));
    }
    Ok(ConfigChange {
        resource: target(context, mode, resource)?,
        replace_all: mode == Mode::Replace,
        ops: resource.configs.iter().map(op).collect::<AdminResult<_>>()?,
    })
}

fn target(context: &ShardContext, mode: Mode, resource: &AlterConfigsResource) -> AdminResult<ConfigResource> {
    let name = resource.resource_name.as_str();
    match (ResourceType::of(resource.resource_type), mode) {
        (Some(ResourceType::Topic), _) => Ok(ConfigResource::Topic(name.into())),
        (Some(ResourceType::Broker), _) => Ok(ConfigResource::Broker(name.into())),
        (Some(ResourceType::BrokerLogger), Mode::Incremental) => {
            check_broker(context, name)?;
            Err(invalid(NO_LOGGERS))
        }
        (Some(ResourceType::ClientMetrics), _) => {
            Err(invalid("AlterConfigs is only supported for topics and brokers, but resource type is CLIENT_METRICS"))
        }
        (Some(ResourceType::BrokerLogger), Mode::Replace) | (None, _) => {
            Err(invalid(format!("Unknown resource type {}", resource.resource_type)))
        }
    }
}

fn check_broker(context: &ShardContext, name: &str) -> AdminResult<()> {
    match is_of_this_node(context, name) {
        Some(true) => Ok(()),
        Some(false) => Err(invalid(format!("Unexpected broker id, expected {}, but received {name}", context.broker))),
        None => Err(invalid(format!("Node id must be an integer, but it is: {name}"))),
    }
}

fn op(config: &AlterableConfig) -> AdminResult<(String, ConfigOp)> {
    let value = config.value.as_ref().map(|value| value.to_string()).unwrap_or_default();
    let op = match config.config_operation {
        operation::SET => ConfigOp::Set(value),
        operation::DELETE => ConfigOp::Delete,
        operation::APPEND => ConfigOp::Append(value),
        operation::SUBTRACT => ConfigOp::Subtract(value),
        other => return Err(invalid(format!("Unknown operations type {other}"))),
    };
    Ok((config.name.to_string(), op))
}
