//! Creating and deleting topics.

use super::super::handle::{AdminError, AdminResult, CreatedTopic, NewTopic, TopicRef};
use super::super::layout;
use super::{
    Change, Context, Ids, check_topic_fits, config_error, create_partition, first_state, loads_of, placement_error,
    refuse,
};
use crate::base::config::TopicConfig;
use crate::base::ids::{BrokerId, TopicId};
use crate::base::limits::{CLUSTER_PARTITIONS_MAX, CREATE_PARTITIONS_MAX};
use crate::cluster::edit::Edit;
use crate::cluster::image::{ClusterImage, Topic};
use crate::cluster::placement::{Load, check_new_assignment, count_assignment, place};
use crate::cluster::topic_name;
use crate::coordination::Op;
use bytes::Bytes;
use kafka_protocol::ResponseError;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

const CLUSTER_METADATA: &str = "__cluster_metadata";
/// "The broker's default", for partitions and for replicas.
const UNSET: i32 = -1;

/// CreateTopics: one answer a topic, in the order asked, and what is to be done.
pub fn create(
    context: &Context,
    topics: &[NewTopic],
    validate_only: bool,
    ids: &mut Ids,
) -> (Vec<AdminResult<CreatedTopic>>, Change) {
    let (load, placed) = loads_of(context.image);
    let mut creation = Creation { context, ids, load, placed, asked: 0, existing: None, staged: BTreeMap::new() };
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    topics.iter().for_each(|topic| *counts.entry(&topic.name).or_default() += 1);
    let mut change = Change::default();
    let answers = topics
        .iter()
        .map(|topic| {
            if topic.name == CLUSTER_METADATA {
                return refuse(
                    ResponseError::InvalidRequest,
                    format!("Creation of internal topic {CLUSTER_METADATA} is prohibited."),
                );
            }
            if counts[topic.name.as_str()] > 1 {
                return refuse(ResponseError::InvalidRequest, "Found multiple entries for this topic.");
            }
            let made = creation.topic(topic)?;
            check_topic_fits(&made)?;
            let mut created = CreatedTopic {
                id: TopicId::ZERO,
                partitions: made.partitions.len() as i32,
                replication_factor: made.partitions[0].replicas.len() as i16,
                settings: made.settings.clone(),
            };
            if !validate_only {
                created.id = made.id;
                steps_to_create(&mut change, &made, context.controller_epoch);
                change.edits.push(Edit::PutTopic(Arc::new(made)));
            }
            Ok(created)
        })
        .collect();
    (answers, change)
}

/// DeleteTopics: name and id of each topic that goes.
pub fn delete(context: &Context, topics: &[TopicRef]) -> (Vec<AdminResult<(String, TopicId)>>, Change) {
    let mut change = Change::default();
    let mut gone: BTreeSet<TopicId> = BTreeSet::new();
    let answers = topics
        .iter()
        .map(|wanted| {
            if !context.config.delete_topic_enable {
                return Err(AdminError { code: ResponseError::TopicDeletionDisabled, message: None });
            }
            let (found, code) = match wanted {
                TopicRef::Name(name) => (context.image.topic(name), ResponseError::UnknownTopicOrPartition),
                TopicRef::Id(id) => (context.image.topic_by_id(*id), ResponseError::UnknownTopicId),
            };
            let topic = found.ok_or(AdminError { code, message: None })?;
            if gone.insert(topic.id) {
                steps_to_delete(&mut change, &topic.name, topic.partitions.len());
                change.edits.push(Edit::DropTopic(Arc::clone(&topic.name)));
            }
            Ok((topic.name.to_string(), topic.id))
        })
        .collect();
    (answers, change)
}

/// The steps that take a topic away. The mark comes first: from there on the topic is as good as gone, and `recover`
/// goes on with its deletion after a crash.
pub fn steps_to_delete(change: &mut Change, topic: &str, partitions: usize) {
    change.create(layout::delete_topic_path(topic), Bytes::new());
    for index in 0..partitions {
        change.ops.push(Op::delete(layout::state_path(topic, index), None));
        change.ops.push(Op::delete(layout::partition_path(topic, index), None));
    }
    change.ops.push(Op::delete(layout::partitions_path(topic), None));
    change.ops.push(Op::delete(layout::topic_config_path(topic), None));
    change.ops.push(Op::delete(layout::topic_path(topic), None));
    change.ops.push(Op::delete(layout::delete_topic_path(topic), None));
}

/// The steps that make a topic. Its own node comes first, with id and assignment: `recover` adds the states that a
/// crash kept from being made.
fn steps_to_create(change: &mut Change, topic: &Topic, controller_epoch: i32) {
    let replicas = topic.partitions.iter().map(|partition| partition.replicas.as_slice());
    change.create(layout::topic_config_path(&topic.name), layout::encode_config(&topic.settings));
    change.create(layout::topic_path(&topic.name), layout::encode_topic(topic.id, replicas));
    change.create(layout::partitions_path(&topic.name), Bytes::new());
    for (index, partition) in topic.partitions.iter().enumerate() {
        create_partition(change, &topic.name, index, partition, controller_epoch);
    }
}

/// One request's topics, each seeing those before it.
struct Creation<'a> {
    context: &'a Context<'a>,
    ids: &'a mut Ids,
    load: BTreeMap<BrokerId, Load>,
    /// Partitions of the cluster, those of this request included: where the round robin goes on.
    placed: usize,
    /// Partitions of this request.
    asked: usize,
    /// Topics that are there, by the same form; filled when the first name that can collide is looked at.
    existing: Option<HashMap<String, Vec<&'a str>>>,
    /// Names of this request's topics, by their form in which '.' and '_' are the same.
    staged: BTreeMap<String, String>,
}

impl Creation<'_> {
    /// Checks in Kafka's order: existence, settings' nulls, counts, placement, name, collisions, assignment, settings.
    fn topic(&mut self, topic: &NewTopic) -> AdminResult<Topic> {
        let image = self.context.image;
        if image.topic(&topic.name).is_some() {
            return refuse(ResponseError::TopicAlreadyExists, format!("Topic '{}' already exists.", topic.name));
        }
        let settings = settings_of(topic)?;
        let replicas = self.replicas(topic)?;
        if let Err(reason) = topic_name::check(&topic.name) {
            return refuse(ResponseError::InvalidTopicException, reason);
        }
        self.check_collision(&topic.name)?;
        let replicas = match replicas {
            Some(replicas) => replicas,
            None => {
                let replicas = check_new_assignment(&image.brokers, &topic.assignment).map_err(placement_error)?;
                self.check_count(replicas.len())?;
                replicas
            }
        };
        TopicConfig::resolve(self.context.config, &settings).map_err(|error| config_error(&error))?;

        self.asked += replicas.len();
        self.placed += replicas.len();
        replicas.iter().for_each(|replicas| count_assignment(&mut self.load, replicas));
        self.staged.insert(unified(&topic.name), topic.name.clone());
        Ok(Topic {
            name: topic.name.as_str().into(),
            id: self.ids.topic(image),
            is_internal: topic_name::is_internal(&topic.name),
            partitions: replicas.into_iter().map(|replicas| first_state(image, replicas, self.ids)).collect(),
            settings,
        })
    }

    /// The placement by counts; None where the request assigns replicas itself.
    fn replicas(&self, topic: &NewTopic) -> AdminResult<Option<Vec<Vec<BrokerId>>>> {
        let factor = i32::from(topic.replication_factor);
        if !topic.assignment.is_empty() {
            if topic.partitions != UNSET || factor != UNSET {
                return refuse(
                    ResponseError::InvalidRequest,
                    "Both numPartitions or replicationFactor and replicasAssignments were set. \
                     Both cannot be used at the same time.",
                );
            }
            return Ok(None);
        }
        let config = self.context.config;
        let partitions = if topic.partitions == UNSET { config.num_partitions } else { topic.partitions };
        let factor = if factor == UNSET { config.default_replication_factor } else { factor };
        self.check_count(usize::try_from(partitions).unwrap_or(0))?;
        place(&self.context.image.brokers, &self.load, partitions, factor, self.placed)
            .map(Some)
            .map_err(placement_error)
    }

    fn check_count(&self, partitions: usize) -> AdminResult<()> {
        check_count(self.asked + partitions, self.placed + partitions)
    }

    fn check_collision(&mut self, name: &str) -> AdminResult<()> {
        if !name.contains(['.', '_']) {
            return Ok(());
        }
        let own = unified(name);
        let image = self.context.image;
        let existing = self.existing.get_or_insert_with(|| by_unified_name(image));
        let existing = existing.get(&own).into_iter().flatten().copied();
        let colliding: Vec<&str> = existing.chain(self.staged.get(&own).map(String::as_str)).collect();
        if colliding.is_empty() {
            return Ok(());
        }
        refuse(
            ResponseError::InvalidTopicException,
            format!("Topic '{name}' collides with existing topics: {}", colliding.join(", ")),
        )
    }
}

/// Refuses more partitions than one request may create, or the cluster may hold (KRaft's code and words).
pub(super) fn check_count(asked: usize, cluster: usize) -> AdminResult<()> {
    if asked > CREATE_PARTITIONS_MAX {
        return refuse(
            ResponseError::PolicyViolation,
            format!("Excessively large number of partitions per request: {asked}, at most {CREATE_PARTITIONS_MAX}."),
        );
    }
    if cluster > CLUSTER_PARTITIONS_MAX {
        return refuse(
            ResponseError::PolicyViolation,
            format!("The cluster would have {cluster} partitions, at most {CLUSTER_PARTITIONS_MAX} are supported."),
        );
    }
    Ok(())
}

fn settings_of(topic: &NewTopic) -> AdminResult<BTreeMap<String, String>> {
    let nulls: Vec<&str> =
        topic.settings.iter().filter(|(_, value)| value.is_none()).map(|(name, _)| name.as_str()).collect();
    if !nulls.is_empty() {
        return refuse(
            ResponseError::InvalidConfig,
            format!("Null value not supported for topic configs: {}", nulls.join(",")),
        );
    }
    Ok(topic.settings.iter().filter_map(|(name, value)| Some((name.clone(), value.clone()?))).collect())
}

/// The topics whose names may collide with others.
fn by_unified_name(image: &ClusterImage) -> HashMap<String, Vec<&str>> {
    let mut names: HashMap<String, Vec<&str>> = HashMap::new();
    for name in image.topics.keys().filter(|name| name.contains(['.', '_'])) {
        names.entry(unified(name)).or_default().push(name);
    }
    names
}

/// Metric names take '.' and '_' for the same, so names that differ only there collide.
fn unified(name: &str) -> String {
    name.replace('.', "_")
}

#[cfg(test)]
#[path = "topics_tests.rs"]
mod tests;
