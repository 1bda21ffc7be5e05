//! The words of scenarios for partitions and records.

use super::super::assign::Partitions;
use super::super::classic_members::of_names;
use super::super::member::Current;
use super::super::record::{Record, TopicMetadata, TopicsMetadata};
use crate::base::ids::TopicId;
use crate::cluster::image::ClusterImage;
use crate::group::classic::MemberClaim;
use crate::group::scenario::Said;
use crate::group::subscription::{self, Named};
use std::collections::BTreeSet;

/// `a,b`; `-` is an empty one.
pub fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').filter(|word| !word.is_empty() && *word != "-")
}

/// `t:0,1+u:2`; `-` is none.
pub fn named(text: &str) -> Result<Named, String> {
    let of_topic = |text: &str| {
        let (topic, numbers) = text.split_once(':').ok_or_else(|| format!("{text} is no topic with partitions"))?;
        let numbers = list(numbers).map(|number| number.parse().map_err(|_| format!("{number} is no partition")));
        Ok((topic.to_owned(), numbers.collect::<Result<_, String>>()?))
    };
    text.split('+').filter(|text| *text != "-").map(of_topic).collect()
}

pub fn partitions(text: &str, image: &ClusterImage) -> Result<Partitions, String> {
    let named = named(text)?;
    match named.iter().find(|(topic, _)| image.topic(topic).is_none()) {
        Some((topic, _)) => Err(format!("there is no topic {topic}")),
        None => Ok(of_names(&named, image)),
    }
}

/// As `named` reads them; a topic that is gone by its id, `(1):0`.
pub fn show(partitions: &Partitions, image: &ClusterImage) -> String {
    let named = |(id, numbers): (&TopicId, &BTreeSet<i32>)| {
        let known = image.topic_by_id(*id).map(|topic| topic.name.to_string());
        (known.unwrap_or_else(|| format!("({})", id.0.as_u128())), numbers.iter().copied().collect())
    };
    show_all(partitions.iter().map(named).collect())
}

/// Of an assignment that members of the classic protocol fetch.
pub fn show_named(assignment: &[u8]) -> String {
    show_all(subscription::read_assignment(assignment).expect("an assignment"))
}

fn show_all(mut named: Named) -> String {
    named.sort();
    let topic = |(topic, numbers): &(String, Vec<i32>)| {
        let numbers: Vec<String> = numbers.iter().map(i32::to_string).collect();
        format!("{topic}:{}", numbers.join(","))
    };
    or_none(named.iter().map(topic).collect::<Vec<_>>().join("+"))
}

fn or_none(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}

/// What a record says.
pub fn told(record: &Record, image: &ClusterImage) -> String {
    let (what, value) = match record {
        Record::Epoch(epoch) => ("epoch".to_owned(), epoch.map(|epoch| epoch.to_string())),
        Record::AssignmentEpoch(epoch) => ("assignment".to_owned(), epoch.map(|epoch| epoch.to_string())),
        Record::Topics(topics) => {
            let topic = |(name, topic): (&String, &TopicMetadata)| format!("{name}:{}", topic.partitions);
            let all = |topics: &TopicsMetadata| or_none(topics.iter().map(topic).collect::<Vec<_>>().join(","));
            ("topics".to_owned(), topics.as_ref().map(all))
        }
        Record::Member(id, None) => (format!("member {id}"), None),
        Record::Member(id, Some(_)) => return format!("member {id}"),
        Record::Target(id, target) => (format!("target {id}"), target.as_ref().map(|target| show(target, image))),
        Record::Current(id, current) => (format!("current {id}"), current.as_ref().map(|one| show_current(one, image))),
        Record::Regex(regex, resolved) => {
            (format!("regex {regex}"), resolved.as_ref().map(|resolved| or_none(resolved.topics.join(","))))
        }
    };
    format!("{what} {}", value.unwrap_or_else(|| "gone".to_owned()))
}

fn show_current(current: &Current, image: &ClusterImage) -> String {
    let revoking = match current.revoking.is_empty() {
        true => String::new(),
        false => format!(" revoking {}", show(&current.revoking, image)),
    };
    let (state, assigned) = (current.state, show(&current.assigned, image));
    format!("{}/{} {state:?} {assigned}{revoking}", current.epoch, current.previous_epoch)
}

pub fn claim(said: &Said, generation: i32) -> MemberClaim {
    MemberClaim { generation, member_id: said.id().to_owned(), instance_id: said.owned("instance") }
}
