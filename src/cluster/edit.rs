//! From one image to the next: what a change replaces; all else is shared.

use super::image::{Broker, ClusterImage, Topic};
use crate::base::ids::{BrokerId, NodeId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// One difference between an image and its successor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// A new topic, or a topic's new state.
    PutTopic(Arc<Topic>),
    DropTopic(Arc<str>),
    Brokers(BTreeMap<BrokerId, Broker>),
    Controller(Option<BrokerId>),
    BrokerDefaults(BTreeMap<String, String>),
    NodeSettings(NodeId, BTreeMap<String, String>),
}

impl ClusterImage {
    /// The next image, one version higher. Topics without an edit are the same `Arc`s.
    pub fn edited(&self, edits: impl IntoIterator<Item = Edit>) -> ClusterImage {
        let mut next = self.clone();
        next.version += 1;
        edits.into_iter().for_each(|edit| next.apply(edit));
        next
    }

    fn apply(&mut self, edit: Edit) {
        match edit {
            Edit::PutTopic(topic) => {
                self.topics_by_id.insert(topic.id, Arc::clone(&topic));
                if let Some(old) = self.topics.insert(Arc::clone(&topic.name), Arc::clone(&topic))
                    && old.id != topic.id
                {
                    self.topics_by_id.remove(&old.id);
                }
            }
            Edit::DropTopic(name) => {
                if let Some(old) = self.topics.remove(&name) {
                    self.topics_by_id.remove(&old.id);
                }
            }
            Edit::Brokers(brokers) => self.brokers = brokers,
            Edit::Controller(controller) => self.controller = controller,
            Edit::BrokerDefaults(settings) => self.broker_defaults = settings,
            Edit::NodeSettings(node, settings) => {
                if settings.is_empty() {
                    self.node_settings.remove(&node);
                } else {
                    self.node_settings.insert(node, settings);
                }
            }
        }
    }

    /// Panics where the image contradicts itself; for tests.
    pub fn check_invariants(&self) {
        assert_eq!(self.topics.len(), self.topics_by_id.len());
        for (name, topic) in &self.topics {
            assert_eq!(*name, topic.name);
            assert!(Arc::ptr_eq(topic, &self.topics_by_id[&topic.id]), "{name}: two states of one topic");
            assert!(!topic.partitions.is_empty(), "{name}: no partitions");
            for partition in &topic.partitions {
                assert!(!partition.replicas.is_empty(), "{name}: no replicas");
                assert!(!partition.isr.is_empty(), "{name}: the in-sync set is never empty");
                assert!(partition.isr.iter().all(|id| partition.replicas.contains(id)), "{name}: ISR not of replicas");
                assert!(partition.leader.is_none_or(|id| partition.isr.contains(&id)), "{name}: leader not in sync");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::TopicId;
    use crate::cluster::image::Partition;

    fn topic(name: &str) -> Arc<Topic> {
        let partition = Partition::led_by(BrokerId(0));
        Arc::new(Topic {
            name: name.into(),
            id: TopicId::random(),
            is_internal: false,
            partitions: vec![partition],
            settings: BTreeMap::new(),
        })
    }

    #[test]
    fn untouched_topics_are_shared() {
        let (a, b) = (topic("a"), topic("b"));
        let first = ClusterImage::default().edited([Edit::PutTopic(Arc::clone(&a)), Edit::PutTopic(b)]);
        let again = topic("b");
        let second = first.edited([Edit::PutTopic(Arc::clone(&again))]);
        second.check_invariants();
        assert_eq!(second.version, 2);
        assert!(Arc::ptr_eq(second.topic("a").unwrap(), &a));
        assert!(Arc::ptr_eq(second.topic_by_id(again.id).unwrap(), &again));
        let third = second.edited([Edit::DropTopic("b".into())]);
        third.check_invariants();
        assert!(third.topic("b").is_none() && third.topic_by_id(again.id).is_none());
        assert_eq!(first.topics.len(), 2, "an image never changes");
    }
}
