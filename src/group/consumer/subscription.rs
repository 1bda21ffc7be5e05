//! What members have subscribed to, and what becomes of it: topics by name and by pattern, and who is to have which partition.

use super::assign::{Assignor, MemberSpec, Partitions, TopicSpec, Topics};
use super::member::{Member, MemberId};
use super::record::{Resolved, TopicMetadata, TopicsMetadata};
use super::{Env, Group};
use crate::cluster::image::{ClusterImage, Topic};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::rc::Rc;

/// A group as it will be: with a member that is new or has changed, without those that go.
pub(super) struct View<'v> {
    pub group: &'v Group,
    pub env: &'v Env<'v>,
    pub updated: Option<&'v Member>,
    pub gone: &'v HashSet<MemberId>,
    pub regexes: Cow<'v, BTreeMap<String, Resolved>>,
}

impl<'v> View<'v> {
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        let is_other = |member: &&Member| {
            !self.gone.contains(&member.id) && self.updated.is_none_or(|updated| updated.id != member.id)
        };
        self.group.members.values().filter(is_other).chain(self.updated)
    }

    /// The topics that members have subscribed to, as far as they exist.
    pub fn topics(&self) -> TopicsMetadata {
        let mut topics = TopicsMetadata::new();
        for member in self.members() {
            for name in self.names(member).filter(|name| !name.is_empty()) {
                if !topics.contains_key(name)
                    && let Some(topic) = self.env.image.topic(name)
                {
                    topics.insert(name.to_owned(), TopicMetadata { id: topic.id, partitions: count(topic) });
                }
            }
        }
        topics
    }

    fn names<'m>(&'m self, member: &'m Member) -> impl Iterator<Item = &'m str> {
        let matching = member.regex().and_then(|regex| self.regexes.get(regex));
        let matching = matching.into_iter().flat_map(|resolved| &resolved.topics);
        member.profile.topics.iter().chain(matching).map(String::as_str)
    }

    /// What each member is to have of these topics. `replaced` is a member whose place the updated one takes.
    pub fn targets(&self, topics: &TopicsMetadata, replaced: Option<&str>) -> HashMap<MemberId, Partitions> {
        let none = Partitions::new();
        let members: Vec<&Member> = self.members().collect();
        let knows_racks = members.iter().any(|member| member.profile.rack_id.is_some());
        let spec = |member: &&'_ Member| -> BTreeSet<_> {
            self.names(member).filter_map(|name| topics.get(name)).map(|topic| topic.id).collect()
        };
        let wanted: Vec<BTreeSet<_>> = members.iter().map(spec).collect();
        let before = |member: &Member| {
            let is_updated = self.updated.is_some_and(|updated| updated.id == member.id);
            let id = replaced.filter(|_| is_updated).unwrap_or(&member.id);
            self.group.targets.get(id).unwrap_or(&none)
        };
        let specs: Vec<MemberSpec<'_>> = members
            .iter()
            .zip(&wanted)
            .map(|(member, wanted)| MemberSpec {
                id: &member.id,
                instance_id: member.instance_id(),
                rack: member.profile.rack_id.as_deref(),
                topics: wanted.iter().copied().collect(),
                before: before(member),
            })
            .collect();
        let assigned = self.assignor().assign(&specs, &self.specs_of(topics, knows_racks));
        members.iter().map(|member| Rc::clone(&member.id)).zip(assigned).collect()
    }

    /// The assignor that most members wish; of equals, and where nobody has a wish, the one that the broker offers first.
    fn assignor(&self) -> Assignor {
        preferred_assignor(self.members(), self.env)
    }

    fn specs_of(&self, topics: &TopicsMetadata, with_racks: bool) -> Topics {
        let spec = |(name, topic): (&String, &TopicMetadata)| {
            let racks = match self.env.image.topic(name) {
                Some(topic) if with_racks => racks_of(topic, self.env.image),
                _ => Vec::new(),
            };
            (topic.id, TopicSpec { partitions: topic.partitions, racks })
        };
        topics.iter().map(spec).collect()
    }
}

/// The assignor that most of these wish; of equals, and where nobody has a wish, the one that the broker offers first.
pub(super) fn preferred_assignor<'m>(members: impl Iterator<Item = &'m Member>, env: &Env<'_>) -> Assignor {
    let mut wishes: HashMap<Assignor, usize> = HashMap::new();
    for wish in members.filter_map(|member| Assignor::parse(member.profile.assignor.as_deref()?)) {
        *wishes.entry(wish).or_default() += 1;
    }
    let offered = env.limits.assignors.iter().rev().copied();
    let most = offered.max_by_key(|assignor| wishes.get(assignor).copied().unwrap_or(0));
    most.unwrap_or(Assignor::Uniform)
}

fn count(topic: &Topic) -> i32 {
    i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX)
}

fn racks_of(topic: &Topic, image: &ClusterImage) -> Vec<BTreeSet<String>> {
    let rack = |replica| image.brokers.get(replica).and_then(|broker| broker.rack.clone());
    topic.partitions.iter().map(|partition| partition.replicas.iter().filter_map(rack).collect()).collect()
}
