//! What is said of a group that something cannot be done with.

use crate::client::error::{ClientError, code_name};
use crate::client::groups::TopicPartitionName;
use crate::client::groups::admin::GroupInfo;
use anyhow::anyhow;
use kafka_protocol::error::ResponseError;
use std::collections::BTreeMap;

/// What failed for single partitions: told once for a topic and an error, not once for each partition.
#[derive(Default)]
pub struct Failures(BTreeMap<(String, String), (ClientError, Vec<i32>)>);

impl Failures {
    pub fn add(&mut self, of: &TopicPartitionName, error: ClientError) {
        let reason = error.code().map_or_else(|| error.to_string(), code_name);
        self.0.entry((of.0.clone(), reason)).or_insert_with(|| (error, Vec::new())).1.push(of.1);
    }

    /// One error for each topic and reason: what was done to which partitions, and why it failed.
    pub fn errors(self, doing: &str) -> Vec<anyhow::Error> {
        let told = |((topic, reason), (error, mut partitions)): ((String, String), (ClientError, Vec<i32>))| {
            partitions.sort_unstable();
            let partitions = partitions.iter().map(i32::to_string).collect::<Vec<_>>().join(",");
            match error.code() {
                Some(code) => {
                    anyhow!(ClientError::like(code, format!("{doing}: {topic}:{partitions}"), sentence(code)))
                }
                None => anyhow!("{doing}: {topic}:{partitions}: {reason}"),
            }
        };
        self.0.into_iter().map(told).collect()
    }
}

/// A code that an operator of groups meets, in words.
fn sentence(code: ResponseError) -> &'static str {
    match code {
        ResponseError::GroupSubscribedToTopic => "the group's members read this topic",
        ResponseError::NonEmptyGroup => "the group has members",
        ResponseError::UnknownMemberId => "the group has no such member, or its members have begun to read",
        ResponseError::UnknownTopicOrPartition => "it does not exist",
        ResponseError::GroupIdNotFound => "it does not exist",
        _ => "",
    }
}

/// A group's members must stop first: who they are, and what to do about those that have gone without a word.
pub fn has_members(info: &GroupInfo) -> String {
    let (group, count) = (&info.group, info.members.len());
    let plural = if count == 1 { "" } else { "s" };
    let mut text =
        format!("stop its {count} member{plural} first (`corelog group describe {group} --members` shows them)");
    let instances: Vec<&str> = info.members.iter().filter_map(|member| member.instance_id.as_deref()).collect();
    match instances.as_slice() {
        [] => text.push_str(&format!("; one that has died goes when its session ends ({})", session(info))),
        [first, rest @ ..] => {
            let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
            text.push_str(&format!(
                "; a static member ({first}{more}) stays after it has stopped, until its session ends ({}) or `corelog group \
                 remove-members {group} --instance {first}`",
                session(info)
            ));
        }
    }
    text
}

/// How long a member may be silent. Nobody tells of a classic member's own setting.
fn session(info: &GroupInfo) -> &'static str {
    match info.kind.as_str() {
        crate::client::groups::admin::CONSUMER => "the broker's group.consumer.session.timeout.ms, 45 s by default",
        _ => "its session.timeout.ms, 45 s by default and 30 min at most",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::groups::admin::MemberInfo;

    #[test]
    fn an_error_of_many_partitions_is_told_once() {
        let mut failures = Failures::default();
        let error = || ClientError::like(ResponseError::GroupSubscribedToTopic, "x", "");
        for (topic, index) in [("t", 3), ("t", 0), ("u", 1)] {
            failures.add(&(topic.to_owned(), index), error());
        }
        failures.add(&("t".to_owned(), 1), ClientError::Invalid("no answer".to_owned()));
        let told: Vec<String> = failures.errors("delete offsets of group g").iter().map(ToString::to_string).collect();
        let expected = [
            "delete offsets of group g: t:0,3: GROUP_SUBSCRIBED_TO_TOPIC: the group's members read this topic",
            "delete offsets of group g: t:1: no answer",
            "delete offsets of group g: u:1: GROUP_SUBSCRIBED_TO_TOPIC: the group's members read this topic",
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn who_has_static_members_is_told_how_they_go() {
        let member = |instance: Option<&str>| MemberInfo {
            member_id: "m".to_owned(),
            instance_id: instance.map(str::to_owned),
            client_id: "c".to_owned(),
            host: "h".to_owned(),
            assigned: BTreeMap::new(),
        };
        let mut info = GroupInfo {
            group: "g".to_owned(),
            kind: "classic".to_owned(),
            state: "Stable".to_owned(),
            protocol_type: "consumer".to_owned(),
            assignor: "range".to_owned(),
            coordinator: 1,
            members: vec![member(None)],
        };
        let told = has_members(&info);
        assert!(
            told.contains("its 1 member first") && told.contains("describe g --members") && !told.contains("static")
        );
        info.members = vec![member(Some("one")), member(Some("two"))];
        let told = has_members(&info);
        assert!(
            told.contains("static member (one and 1 more)") && told.contains("remove-members g --instance one"),
            "{told}"
        );
    }
}
