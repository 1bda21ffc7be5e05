//! How a group's leader shares partitions out: the assignors that all clients have in common. Pure.
//!
//! Both are Kafka's, member for member, so that it does not matter which client leads. Members are taken in the order of
//! `group.instance.id`, those without one behind in the order of their ids.

use super::protocol::Partitions;
use std::collections::BTreeMap;

/// A way to share partitions out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assignor {
    /// Topic by topic: each member gets a run of partitions, and the first ones one more where it does not divide.
    Range,
    /// All partitions of all topics in turn.
    RoundRobin,
}

/// A member that wants a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub member_id: String,
    pub instance_id: Option<String>,
    pub topics: Vec<String>,
}

impl Assignor {
    /// The name by which members agree on it.
    pub fn name(self) -> &'static str {
        match self {
            Assignor::Range => "range",
            Assignor::RoundRobin => "roundrobin",
        }
    }

    pub fn named(name: &str) -> Option<Assignor> {
        [Assignor::Range, Assignor::RoundRobin].into_iter().find(|assignor| assignor.name() == name)
    }

    /// What each member gets, by its id; `topics` has the partitions of each topic that exists.
    pub fn assign(self, members: &[Candidate], topics: &Partitions) -> BTreeMap<String, Partitions> {
        let mut members: Vec<&Candidate> = members.iter().collect();
        members.sort_by(|a, b| order(a).cmp(&order(b)));
        let mut parts: BTreeMap<String, Partitions> =
            members.iter().map(|member| (member.member_id.clone(), Partitions::new())).collect();
        match self {
            Assignor::Range => range(&members, topics, &mut parts),
            Assignor::RoundRobin => round_robin(&members, topics, &mut parts),
        }
        parts
    }
}

fn order(member: &Candidate) -> (bool, Option<&str>, &str) {
    (member.instance_id.is_none(), member.instance_id.as_deref(), &member.member_id)
}

fn wants(member: &Candidate, topic: &str) -> bool {
    member.topics.iter().any(|wanted| wanted == topic)
}

fn range(members: &[&Candidate], topics: &Partitions, parts: &mut BTreeMap<String, Partitions>) {
    for (topic, indexes) in topics {
        let readers: Vec<&&Candidate> = members.iter().filter(|member| wants(member, topic)).collect();
        if readers.is_empty() {
            continue;
        }
        let (each, more) = (indexes.len() / readers.len(), indexes.len() % readers.len());
        let mut rest = indexes.as_slice();
        for (at, reader) in readers.iter().enumerate() {
            let (run, after) = rest.split_at(each + usize::from(at < more));
            rest = after;
            give(parts, reader, topic, run);
        }
    }
}

fn round_robin(members: &[&Candidate], topics: &Partitions, parts: &mut BTreeMap<String, Partitions>) {
    let mut turn = 0;
    for (topic, indexes) in topics {
        if !members.iter().any(|member| wants(member, topic)) {
            continue;
        }
        for index in indexes {
            let mut around = (0..members.len()).map(|ahead| (turn + ahead) % members.len());
            let at = around.find(|at| wants(members[*at], topic)).expect("invariant: somebody wants the topic");
            give(parts, members[at], topic, &[*index]);
            turn = at + 1;
        }
    }
}

fn give(parts: &mut BTreeMap<String, Partitions>, member: &Candidate, topic: &str, indexes: &[i32]) {
    if !indexes.is_empty() {
        let part = parts.get_mut(&member.member_id).expect("invariant: every member has a part");
        part.entry(topic.to_owned()).or_default().extend(indexes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn member(id: &str, topics: &[&str]) -> Candidate {
        let topics = topics.iter().map(|topic| (*topic).to_owned()).collect();
        Candidate { member_id: id.to_owned(), instance_id: None, topics }
    }

    fn topics(counts: &[(&str, i32)]) -> Partitions {
        counts.iter().map(|(topic, count)| ((*topic).to_owned(), (0..*count).collect())).collect()
    }

    fn part(parts: &BTreeMap<String, Partitions>, id: &str) -> Vec<String> {
        let of = |(topic, indexes): (&String, &Vec<i32>)| {
            indexes.iter().map(|index| format!("{topic}{index}")).collect::<Vec<_>>()
        };
        parts[id].iter().flat_map(of).collect()
    }

    /// The examples that the documentation of Kafka's RangeAssignor and RoundRobinAssignor gives.
    #[test]
    fn parts_are_those_of_kafkas_assignors() {
        let two = [member("c0", &["t", "u"]), member("c1", &["t", "u"])];
        let parts = Assignor::Range.assign(&two, &topics(&[("t", 3), ("u", 3)]));
        assert_eq!(part(&parts, "c0"), ["t0", "t1", "u0", "u1"]);
        assert_eq!(part(&parts, "c1"), ["t2", "u2"]);
        let parts = Assignor::RoundRobin.assign(&two, &topics(&[("t", 3), ("u", 3)]));
        assert_eq!(part(&parts, "c0"), ["t0", "t2", "u1"]);
        assert_eq!(part(&parts, "c1"), ["t1", "u0", "u2"]);
        let mixed = [member("c0", &["t"]), member("c1", &["t", "u"]), member("c2", &["t", "u", "v"])];
        let parts = Assignor::RoundRobin.assign(&mixed, &topics(&[("t", 1), ("u", 2), ("v", 3)]));
        assert_eq!(part(&parts, "c0"), ["t0"]);
        assert_eq!(part(&parts, "c1"), ["u0"]);
        assert_eq!(part(&parts, "c2"), ["u1", "v0", "v1", "v2"]);
    }

    #[test]
    fn static_members_come_first_and_unwanted_topics_go_to_nobody() {
        let mut late = member("z", &["t"]);
        late.instance_id = Some("i".to_owned());
        let parts = Assignor::Range.assign(&[member("a", &["t"]), late], &topics(&[("t", 3), ("u", 9)]));
        assert_eq!((part(&parts, "z"), part(&parts, "a")), (vec!["t0".into(), "t1".into()], vec!["t2".into()]));
    }

    proptest! {
        #[test]
        fn each_partition_that_is_wanted_has_one_owner_who_wants_it(
            wanted in prop::collection::vec(prop::collection::btree_set(0..4usize, 0..4), 1..8),
            counts in prop::collection::vec(0..20i32, 4),
            is_range in any::<bool>(),
        ) {
            let names = ["p", "q", "r", "s"];
            let assignor = if is_range { Assignor::Range } else { Assignor::RoundRobin };
            let members: Vec<Candidate> = (0..).zip(&wanted)
                .map(|(n, topics)| member(&format!("m{n}"), &topics.iter().map(|t| names[*t]).collect::<Vec<_>>()))
                .collect();
            let topics = topics(&names.iter().copied().zip(counts.iter().copied()).collect::<Vec<_>>());
            let parts = assignor.assign(&members, &topics);
            prop_assert_eq!(parts.len(), members.len());
            for (topic, indexes) in &topics {
                let readers: Vec<&Candidate> = members.iter().filter(|member| wants(member, topic)).collect();
                let mut owned: Vec<i32> = Vec::new();
                for (id, part) in &parts {
                    let part = part.get(topic).cloned().unwrap_or_default();
                    prop_assert!(part.is_empty() || readers.iter().any(|reader| reader.member_id == *id));
                    if is_range && readers.iter().any(|reader| reader.member_id == *id) {
                        let each = indexes.len() / readers.len();
                        prop_assert!(part.len() == each || part.len() == each + 1);
                    }
                    owned.extend(part);
                }
                owned.sort_unstable();
                prop_assert_eq!(owned, if readers.is_empty() { vec![] } else { indexes.clone() });
            }
            if wanted.iter().all(|topics| topics.len() == 4) && !is_range {
                let sizes: Vec<usize> = parts.values().map(|part| part.values().map(Vec::len).sum()).collect();
                prop_assert!(sizes.iter().max().unwrap_or(&0) - sizes.iter().min().unwrap_or(&0) <= 1);
            }
        }
    }
}
