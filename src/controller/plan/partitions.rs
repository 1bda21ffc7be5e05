//! Adding partitions to topics.

use super::super::handle::{AdminResult, MorePartitions};
use super::super::layout;
use super::topics::check_count;
use super::{Change, Context, Ids, check_topic_fits, create_partition, first_state, loads_of, placement_error, refuse};
use crate::base::ids::BrokerId;
use crate::cluster::edit::Edit;
use crate::cluster::image::Topic;
use crate::cluster::placement::{Load, check_added_assignment, count_assignment, place};
use crate::coordination::Op;
use kafka_protocol::ResponseError;
use std::collections::BTreeMap;
use std::sync::Arc;

/// CreatePartitions: one answer a topic, in the order asked.
pub fn add(
    context: &Context,
    topics: &[MorePartitions],
    validate_only: bool,
    ids: &mut Ids,
) -> (Vec<AdminResult<()>>, Change) {
    let (mut load, mut placed) = loads_of(context.image);
    let mut asked = 0;
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    topics.iter().for_each(|topic| *counts.entry(&topic.topic).or_default() += 1);
    let mut change = Change::default();
    let answers = topics
        .iter()
        .map(|wanted| {
            if counts[wanted.topic.as_str()] > 1 {
                return refuse(ResponseError::InvalidRequest, "Duplicate topic in request.");
            }
            let (topic, increment) = checked(context, wanted)?;
            check_count(asked + increment as usize, placed + increment as usize)?;
            let added = replicas_of(context, wanted, topic, increment, &load, placed)?;
            asked += added.len();
            placed += added.len();
            added.iter().for_each(|replicas| count_assignment(&mut load, replicas));
            let grown = grown(context, topic, added, ids);
            check_topic_fits(&grown)?;
            if !validate_only {
                steps_to_grow(context, &mut change, topic.partitions.len(), &grown);
                change.edits.push(Edit::PutTopic(Arc::new(grown)));
            }
            Ok(())
        })
        .collect();
    (answers, change)
}

/// The topic, and by how many partitions it grows.
fn checked<'a>(context: &Context<'a>, wanted: &MorePartitions) -> AdminResult<(&'a Arc<Topic>, i32)> {
    let Some(topic) = context.image.topic(&wanted.topic) else {
        return refuse(ResponseError::UnknownTopicOrPartition, format!("The topic '{}' does not exist.", wanted.topic));
    };
    let present = topic.partitions.len() as i32;
    if wanted.count < present {
        return refuse(
            ResponseError::InvalidPartitions,
            format!("Topic currently has {present} partitions, which is higher than the requested {}.", wanted.count),
        );
    }
    if wanted.count == present {
        return refuse(ResponseError::InvalidPartitions, format!("Topic already has {present} partitions."));
    }
    if topic.is_internal {
        // Kafka's brokers go by the old number until they are started again, and find nothing then.
        let what = "what belongs to which of its partitions follows from their number: with more of them, committed offsets would not be found";
        return refuse(
            ResponseError::InvalidPartitions,
            format!("The topic '{}' keeps its {present} partitions: {what}.", wanted.topic),
        );
    }
    Ok((topic, wanted.count - present))
}

fn replicas_of(
    context: &Context,
    wanted: &MorePartitions,
    topic: &Topic,
    increment: i32,
    load: &BTreeMap<BrokerId, Load>,
    start: usize,
) -> AdminResult<Vec<Vec<BrokerId>>> {
    let brokers = &context.image.brokers;
    let factor = topic.partitions[0].replicas.len();
    match &wanted.assignment {
        Some(assignment) => {
            check_added_assignment(brokers, assignment, increment, topic.partitions.len(), factor)
                .map_err(placement_error)?;
            Ok(assignment.clone())
        }
        None => place(brokers, load, increment, factor as i32, start).map_err(placement_error),
    }
}

fn grown(context: &Context, topic: &Topic, added: Vec<Vec<BrokerId>>, ids: &mut Ids) -> Topic {
    let mut grown = topic.clone();
    grown.partitions.extend(added.into_iter().map(|replicas| first_state(context.image, replicas, ids)));
    grown
}

/// The assignment comes first: `recover` adds the states that a crash kept from being made.
fn steps_to_grow(context: &Context, change: &mut Change, present: usize, grown: &Topic) {
    let replicas = grown.partitions.iter().map(|partition| partition.replicas.as_slice());
    change.ops.push(Op::set(layout::topic_path(&grown.name), layout::encode_topic(grown.id, replicas), None));
    for (index, partition) in grown.partitions.iter().enumerate().skip(present) {
        create_partition(change, &grown.name, index, partition, context.controller_epoch);
    }
}

#[cfg(test)]
#[path = "partitions_tests.rs"]
mod tests;
