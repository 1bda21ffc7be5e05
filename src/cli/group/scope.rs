//! Which groups and which partitions a command is about.

use crate::client::cluster::Cluster;
use crate::client::error::ClientError;
use crate::client::groups::TopicPartitionName;
use crate::client::groups::admin;
use crate::client::metadata::Topics;
use kafka_protocol::error::ResponseError;
use std::collections::{BTreeMap, BTreeSet};

/// `TOPIC`, or `TOPIC:0,3` for some of its partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicScope {
    topic: String,
    /// None: all.
    partitions: Option<Vec<i32>>,
}

pub fn parse_topic(text: &str) -> Result<TopicScope, String> {
    let (topic, partitions) = match text.split_once(':') {
        None => (text, None),
        Some((topic, indexes)) => {
            let index = |text: &str| text.trim().parse::<i32>().ok().filter(|index| *index >= 0);
            let indexes: Option<Vec<i32>> = indexes.split(',').map(index).collect();
            (topic, Some(indexes.ok_or("give partitions as TOPIC:0,3 with numbers from 0 on")?))
        }
    };
    match topic.is_empty() {
        true => Err("the topic's name is missing".to_owned()),
        false => Ok(TopicScope { topic: topic.to_owned(), partitions }),
    }
}

/// These groups, each once, or all that the cluster has.
pub fn groups(cluster: &mut Cluster, named: &[String], all: bool) -> Result<Vec<String>, ClientError> {
    if all {
        return Ok(admin::list(cluster, &[], &[])?.into_iter().map(|group| group.group).collect());
    }
    let mut seen = BTreeSet::new();
    Ok(named.iter().filter(|group| seen.insert(*group)).cloned().collect())
}

/// The partitions that these topics have, by topic.
pub fn existing(
    cluster: &mut Cluster,
    topics: impl IntoIterator<Item = String>,
) -> Result<BTreeMap<String, Vec<i32>>, ClientError> {
    let names: BTreeSet<String> = topics.into_iter().collect();
    if names.is_empty() {
        return Ok(BTreeMap::new());
    }
    let metadata = cluster.metadata(&Topics::Named(names.iter().cloned().collect()), false)?;
    let exist = metadata.topics.into_values().filter(|topic| topic.error.is_none() && names.contains(&topic.name));
    Ok(exist.map(|topic| (topic.name, topic.partitions.iter().map(|p| p.index).collect())).collect())
}

/// All partitions that these scopes mean, each of which must exist.
pub fn partitions(cluster: &mut Cluster, scopes: &[TopicScope]) -> Result<BTreeSet<TopicPartitionName>, ClientError> {
    let existing = existing(cluster, scopes.iter().map(|scope| scope.topic.clone()))?;
    let missing = |what: String| ClientError::like(ResponseError::UnknownTopicOrPartition, what, "it does not exist");
    let mut partitions = BTreeSet::new();
    for TopicScope { topic, partitions: wanted } in scopes {
        let there = existing.get(topic).ok_or_else(|| missing(format!("topic {topic}")))?;
        let wanted = wanted.as_ref().unwrap_or(there);
        if let Some(index) = wanted.iter().find(|index| !there.contains(index)) {
            return Err(missing(format!("partition {topic}-{index}")));
        }
        partitions.extend(wanted.iter().map(|index| (topic.clone(), *index)));
    }
    Ok(partitions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_written_as_kafkas_tool_takes_them() {
        let scope = |topic: &str, partitions: Option<Vec<i32>>| Ok(TopicScope { topic: topic.to_owned(), partitions });
        assert_eq!(parse_topic("clicks"), scope("clicks", None));
        assert_eq!(parse_topic("clicks:0,3"), scope("clicks", Some(vec![0, 3])));
        for wrong in ["", ":1", "clicks:", "clicks:x", "clicks:-1", "clicks:1,"] {
            assert!(parse_topic(wrong).is_err(), "{wrong}");
        }
    }
}
