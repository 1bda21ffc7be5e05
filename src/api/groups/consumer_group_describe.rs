//! ConsumerGroupDescribe (key 69, KIP-848).
//!
//! Versions: 0-1. Groups of the new protocol with their members, what these have and are to have; from 1 on it tells which protocol
//! a member speaks. A group of the classic protocol is not found, so that clients ask DescribeGroups. An answer that is full
//! refuses further groups with MESSAGE_TOO_LARGE.

use super::super::authorized_operations;
use super::super::context::ShardContext;
use super::super::registry::Served;
use super::super::{Outcome, RequestInfo};
use super::{Room, distinct, slice_of, text};
use crate::cluster::image::ClusterImage;
use crate::group::consumer::assign::Partitions;
use crate::group::consumer::member::Member;
use crate::group::consumer::{Env, Group};
use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::consumer_group_describe_response::{
    Assignment, DescribedGroup, Member as DescribedMember, TopicPartitions,
};
use kafka_protocol::messages::{ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, GroupId, TopicName};
use std::rc::Rc;

pub const SERVED: Served = Served { key: 69, advertised_min: 0, accepted_min: 0, max: 1, handle };

const MEMBER_TYPE_SINCE: i16 = 1;
const CLASSIC: i8 = 0;
const CONSUMER: i8 = 1;
const UNKNOWN: i8 = -1;

fn handle(context: &Rc<ShardContext>, info: &RequestInfo, body: Bytes) -> Outcome {
    info.decoded(body, |request: ConsumerGroupDescribeRequest| {
        let operations = match request.include_authorized_operations {
            true => authorized_operations::GROUP,
            false => authorized_operations::NOT_ASKED,
        };
        let refused = |error: ResponseError, message: String| {
            DescribedGroup::default()
                .with_error_code(error.code())
                .with_error_message(Some(message).filter(|message| !message.is_empty()).map(|message| text(&message)))
        };
        let mut room = Room::new();
        let describe = |id: GroupId| {
            let describe = || match described(context, &id, info.version) {
                Ok(group) => group.with_authorized_operations(operations),
                Err((error, message)) => refused(error, message),
            };
            let full = |error| refused(error, "The answer is full: ask for fewer groups at a time.".to_owned());
            room.part(info.version, describe, full).with_group_id(id)
        };
        let groups = distinct(request.group_ids, GroupId::clone).map(describe).collect();
        info.reply(&ConsumerGroupDescribeResponse::default().with_groups(groups))
    })
}

fn described(context: &ShardContext, id: &GroupId, version: i16) -> Result<DescribedGroup, (ResponseError, String)> {
    let slice = slice_of(context, id, false).map_err(|error| (error, String::new()))?;
    let (settings, image) = (context.groups.settings(), context.image());
    let env = Env::new(&image, &settings.consumer);
    let found = slice.view(id, |view| match view.kind.consumer() {
        Some(group) => Ok(fill(group, &env, version)),
        None => Err(format!("Group {} is not a consumer group.", id.as_str())),
    });
    let not_found = |message| (ResponseError::GroupIdNotFound, message);
    found.unwrap_or_else(|| Err(format!("Group {} not found.", id.as_str()))).map_err(not_found)
}

fn fill(group: &Group, env: &Env<'_>, version: i16) -> DescribedGroup {
    let member = |member: &Member| {
        let target = group.target(&member.id);
        let kind = if member.is_classic() { CLASSIC } else { CONSUMER };
        DescribedMember::default()
            .with_member_id(text(&member.id))
            .with_instance_id(member.instance_id().map(text))
            .with_rack_id(member.profile.rack_id.as_deref().map(text))
            .with_member_epoch(member.epoch())
            .with_client_id(text(&member.profile.client_id))
            .with_client_host(text(&member.profile.client_host))
            .with_subscribed_topic_names(member.profile.topics.iter().map(|name| TopicName(text(name))).collect())
            .with_subscribed_topic_regex(Some(text(member.profile.regex.as_deref().unwrap_or_default())))
            .with_assignment(assignment(&member.current.assigned, env.image))
            .with_target_assignment(target.map(|target| assignment(target, env.image)).unwrap_or_default())
            .with_member_type(if version >= MEMBER_TYPE_SINCE { kind } else { UNKNOWN })
    };
    DescribedGroup::default()
        .with_group_state(text(group.state().name()))
        .with_group_epoch(group.epoch())
        .with_assignment_epoch(group.assignment_epoch())
        .with_assignor_name(text(group.assignor(env).name()))
        .with_members(group.members().map(member).collect())
}

/// Topics that are gone have no name any more and are left out.
fn assignment(partitions: &Partitions, image: &ClusterImage) -> Assignment {
    let topic = |(id, partitions): (&crate::base::ids::TopicId, &std::collections::BTreeSet<i32>)| {
        let topic = image.topic_by_id(*id)?;
        let partitions = partitions.iter().copied().collect();
        let named = TopicPartitions::default().with_topic_id(id.0).with_topic_name(TopicName(text(&topic.name)));
        Some(named.with_partitions(partitions))
    };
    Assignment::default().with_topic_partitions(partitions.iter().filter_map(topic).collect())
}
