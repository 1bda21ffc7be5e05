//! DescribeGroups (key 15).
//!
//! Versions: 0-5. Members' metadata and assignments are told of stable groups only, as Kafka does. A group that is not there is Dead and no error,
//! and so is one of the new protocol: ConsumerGroupDescribe tells about those. One that is named twice is described once.
//! An answer that is full refuses further groups with MESSAGE_TOO_LARGE.

use super::super::authorized_operations;
use super::super::context::ShardContext;
use super::super::registry::Served;
use super::super::{Outcome, RequestInfo};
use super::{Room, distinct, slice_of, text};
use crate::group::classic::{Group, State};
use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::{DescribeGroupsRequest, DescribeGroupsResponse, GroupId};
use std::rc::Rc;

pub const SERVED: Served = Served { key: 15, advertised_min: 0, accepted_min: 0, max: 5, handle };

fn handle(context: &Rc<ShardContext>, info: &RequestInfo, body: Bytes) -> Outcome {
    info.decoded(body, |request: DescribeGroupsRequest| {
        let operations = match request.include_authorized_operations {
            true => authorized_operations::GROUP,
            false => authorized_operations::NOT_ASKED,
        };
        let mut room = Room::new();
        let groups = distinct(request.groups, GroupId::clone).map(|id| {
            let refused = |error: ResponseError| {
                DescribedGroup::default().with_group_id(id.clone()).with_error_code(error.code())
            };
            let group = room.part(info.version, || describe(context, id.clone()), refused);
            group.with_authorized_operations(operations)
        });
        info.reply(&DescribeGroupsResponse::default().with_groups(groups.collect()))
    })
}

fn describe(context: &ShardContext, id: GroupId) -> DescribedGroup {
    let answer = DescribedGroup::default().with_group_id(id.clone());
    let slice = match slice_of(context, &id, true) {
        Ok(slice) => slice,
        Err(error) => return answer.with_error_code(error.code()),
    };
    let described = slice.view(&id, |view| view.kind.classic().map(|group| fill(answer.clone(), group)));
    described.flatten().unwrap_or_else(|| answer.with_group_state(text(State::Dead.name())))
}

fn fill(answer: DescribedGroup, group: &Group) -> DescribedGroup {
    let is_stable = group.state() == State::Stable;
    let protocol = group.protocol().unwrap_or_default();
    let members = group.members().iter().map(|member| {
        let described = DescribedGroupMember::default()
            .with_member_id(text(&member.id))
            .with_group_instance_id(member.instance_id.as_deref().map(text))
            .with_client_id(text(&member.client_id))
            .with_client_host(text(&member.client_host));
        match is_stable {
            true => described
                .with_member_metadata(member.metadata(protocol))
                .with_member_assignment(member.assignment.clone()),
            false => described,
        }
    });
    answer
        .with_group_state(text(group.state().name()))
        .with_protocol_type(text(group.protocol_type().unwrap_or_default()))
        .with_protocol_data(text(if is_stable { protocol } else { "" }))
        .with_members(members.collect())
}
