//! Where two normalised answers differ.

use crate::normalise::keys_of;
use crate::tree::Tree;
use std::collections::BTreeMap;

/// One differing field. Lists without order are addressed by key (`topics[plain]`), others by index (`topics[0]`).
#[derive(Clone, Debug, PartialEq)]
pub struct FieldDifference {
    pub path: String,
    pub oracle: String,
    pub subject: String,
}

/// What stands for an element or field that one side lacks.
pub const ABSENT: &str = "<absent>";

pub fn diff(oracle: &Tree, subject: &Tree) -> Vec<FieldDifference> {
    let mut found = Vec::new();
    walk("", Some(oracle), Some(subject), &mut found);
    found
}

fn walk(path: &str, oracle: Option<&Tree>, subject: Option<&Tree>, found: &mut Vec<FieldDifference>) {
    match (oracle, subject) {
        (Some(Tree::List(left)), Some(Tree::List(right))) => {
            for (key, left, right) in paired(left, right) {
                walk(&format!("{path}[{key}]"), left, right, found);
            }
        }
        (Some(Tree::Struct(_, left)), Some(Tree::Struct(_, right))) => {
            let dot = if path.is_empty() { "" } else { "." };
            for (name, value) in left {
                let other = right.iter().find(|(field, _)| field == name).map(|(_, value)| value);
                walk(&format!("{path}{dot}{name}"), Some(value), other, found);
            }
            for (name, value) in right.iter().filter(|(name, _)| !left.iter().any(|(field, _)| field == name)) {
                walk(&format!("{path}{dot}{name}"), None, Some(value), found);
            }
        }
        (left, right) if left == right => {}
        (left, right) => found.push(FieldDifference {
            path: path.to_owned(),
            oracle: left.map_or(ABSENT.into(), Tree::to_string),
            subject: right.map_or(ABSENT.into(), Tree::to_string),
        }),
    }
}

/// Elements of both lists that belong together. A key that occurs several times counts its occurrences.
fn paired<'a>(left: &'a [Tree], right: &'a [Tree]) -> Vec<(String, Option<&'a Tree>, Option<&'a Tree>)> {
    let longer = if left.len() < right.len() { right } else { left };
    if keys_of(longer).is_none() {
        return (0..longer.len()).map(|index| (index.to_string(), left.get(index), right.get(index))).collect();
    }
    let by_key = |items: &'a [Tree]| {
        let mut map: BTreeMap<(String, usize), &'a Tree> = BTreeMap::new();
        for (key, item) in keys_of(items).unwrap_or_default().into_iter().zip(items) {
            let nth = map.range((key.clone(), 0)..=(key.clone(), usize::MAX)).count();
            map.insert((key, nth), item);
        }
        map
    };
    let (left, right) = (by_key(left), by_key(right));
    let mut keys: Vec<_> = left.keys().chain(right.keys()).cloned().collect();
    keys.sort();
    keys.dedup();
    let name = |(key, nth): &(String, usize)| if *nth == 0 { key.clone() } else { format!("{key}#{nth}") };
    keys.iter().map(|key| (name(key), left.get(key).copied(), right.get(key).copied())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::normalise::Known;
    use kafka_protocol::messages::{BrokerId, MetadataResponse, TopicName, metadata_response::*};
    use kafka_protocol::protocol::StrBytes;

    fn metadata(node: i32, topics: &[(&str, i16)]) -> Tree {
        let topic = |&(name, error): &(&str, i16)| {
            let name = TopicName(StrBytes::from_string(name.into()));
            MetadataResponseTopic::default().with_name(Some(name)).with_error_code(error)
        };
        let broker = MetadataResponseBroker::default().with_node_id(BrokerId(node)).with_port(9000 + node);
        let answer = MetadataResponse::default()
            .with_brokers(vec![broker])
            .with_controller_id(BrokerId(node))
            .with_topics(topics.iter().map(topic).collect());
        Known::new(Vec::new()).normalise(Tree::of(&answer).unwrap(), 0)
    }

    #[test]
    fn own_ids_and_order_are_no_difference_but_values_are() {
        let kafka = metadata(1, &[("a", 0), ("b", 3)]);
        assert_eq!(diff(&kafka, &metadata(7000, &[("b", 3), ("a", 0)])), []);
        let found = diff(&kafka, &metadata(7000, &[("b", 5), ("c", 0)]));
        let found: Vec<_> =
            found.iter().map(|one| (one.path.as_str(), one.oracle.as_str(), one.subject.as_str())).collect();
        assert_eq!(found.len(), 3, "{found:?}");
        assert_eq!(found[0].0, "topics[a]");
        assert_eq!(found[0].2, ABSENT);
        assert_eq!(found[1], ("topics[b].error_code", "3 UnknownTopicOrPartition", "5 LeaderNotAvailable"));
        assert_eq!((found[2].0, found[2].1), ("topics[c]", ABSENT));
    }
}
