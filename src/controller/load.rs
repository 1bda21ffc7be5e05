//! The store read whole: at the start, and whenever it may differ from the image.

use super::plan::recover::{StoredPartition, StoredTopic};
use super::{ControlError, election, layout};
use crate::base::ids::{BrokerId, NodeId};
use crate::cluster::image::{Broker, ClusterImage};
use crate::coordination::{Coordination, Op, Store, StoreError};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// What the store says.
pub struct Loaded {
    /// Without topics: `plan::recover` makes them of `topics`.
    pub image: ClusterImage,
    pub topics: Vec<StoredTopic>,
    /// Topics that are marked for deletion, not in `topics`.
    pub deleting: Vec<String>,
    /// Names with settings and no topic: a crash cut a creation short before it had made the topic's own node.
    pub orphans: Vec<String>,
}

pub async fn load(store: &Store, cluster_id: &str) -> Result<Loaded, ControlError> {
    let deleting = store.children(layout::DELETE_TOPICS).await?;
    let marked: BTreeSet<&str> = deleting.iter().map(String::as_str).collect();
    let mut topics = Vec::new();
    let names = store.children(layout::TOPICS).await?;
    for name in names.iter().filter(|name| !marked.contains(name.as_str())) {
        topics.push(topic(store, name).await?);
    }
    let known: BTreeSet<&str> = names.iter().chain(&deleting).map(String::as_str).collect();
    let mut orphans = store.children(layout::CONFIG_TOPICS).await?;
    orphans.retain(|name| !known.contains(name.as_str()));
    let mut image = ClusterImage {
        cluster_id: cluster_id.to_string(),
        controller: election::controller(store).await?,
        brokers: brokers(store).await?,
        ..ClusterImage::default()
    };
    for name in store.children(layout::CONFIG_BROKERS).await? {
        // What is neither the default nor a node's number is Kafka's or a human's, and nothing to us.
        let node = name.parse::<i32>().ok().map(NodeId);
        let settings = config(store, &format!("{}/{name}", layout::CONFIG_BROKERS)).await?.unwrap_or_default();
        match node {
            Some(node) => drop(image.node_settings.insert(node, settings)),
            None if name == "<default>" => image.broker_defaults = settings,
            None => {}
        }
    }
    image.node_settings.retain(|_, settings| !settings.is_empty());
    Ok(Loaded { image, topics, deleting, orphans })
}

/// The brokers that are registered now.
pub async fn brokers(store: &Store) -> Result<BTreeMap<BrokerId, Broker>, ControlError> {
    let mut brokers = BTreeMap::new();
    for name in store.children(layout::BROKER_IDS).await? {
        let Ok(id) = name.parse::<i32>().map(BrokerId) else { continue };
        // One may leave between the two reads.
        if let Some(data) = data_of(store, &layout::broker_path(id)).await? {
            brokers.insert(id, layout::decode_broker(id, &data)?);
        }
    }
    Ok(brokers)
}

/// The steps that delete what is left of a topic, children first, its mark last.
pub async fn remains(store: &Store, topic: &str) -> Result<Vec<Op>, ControlError> {
    let mut paths = Vec::new();
    let mut pending = vec![layout::topic_path(topic)];
    while let Some(path) = pending.pop() {
        match store.children(&path).await {
            Ok(children) => pending.extend(children.into_iter().map(|child| format!("{path}/{child}"))),
            Err(StoreError::NoNode) => continue,
            Err(error) => return Err(error.into()),
        }
        paths.push(path);
    }
    // Each path was pushed before its children, so the reverse has the children first.
    paths.reverse();
    if store.exists(&layout::topic_config_path(topic)).await?.is_some() {
        paths.push(layout::topic_config_path(topic));
    }
    paths.push(layout::delete_topic_path(topic));
    Ok(paths.into_iter().map(|path| Op::delete(path, None)).collect())
}

async fn topic(store: &Store, name: &str) -> Result<StoredTopic, ControlError> {
    let (data, _) = store.get(&layout::topic_path(name)).await?;
    let (id, assignment) = layout::decode_topic(name, &data)?;
    let settings = config(store, &layout::topic_config_path(name)).await?;
    let nodes = match store.children(&layout::partitions_path(name)).await {
        Ok(nodes) => Some(nodes.into_iter().collect::<BTreeSet<String>>()),
        Err(StoreError::NoNode) => None,
        Err(error) => return Err(error.into()),
    };
    let mut partitions = Vec::with_capacity(assignment.len());
    for (index, replicas) in assignment.into_iter().enumerate() {
        let has_node = nodes.as_ref().is_some_and(|nodes| nodes.contains(&index.to_string()));
        let path = layout::state_path(name, index);
        let state = match if has_node { get(store, &path).await? } else { None } {
            Some((data, version)) => Some(layout::decode_state(&path, &data, version, replicas.clone())?),
            None => None,
        };
        partitions.push(StoredPartition { replicas, has_node, state });
    }
    Ok(StoredTopic {
        name: name.into(),
        id,
        has_config: settings.is_some(),
        settings: settings.unwrap_or_default(),
        has_partitions_node: nodes.is_some(),
        partitions,
    })
}

async fn config(store: &Store, path: &str) -> Result<Option<BTreeMap<String, String>>, ControlError> {
    match data_of(store, path).await? {
        Some(data) => Ok(Some(layout::decode_config(path, &data)?)),
        None => Ok(None),
    }
}

async fn data_of(store: &Store, path: &str) -> Result<Option<Bytes>, ControlError> {
    Ok(get(store, path).await?.map(|(data, _)| data))
}

/// Data and version; None where there is no node.
async fn get(store: &Store, path: &str) -> Result<Option<(Bytes, i32)>, ControlError> {
    match store.get(path).await {
        Ok((data, stat)) => Ok(Some((data, stat.version))),
        Err(StoreError::NoNode) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
