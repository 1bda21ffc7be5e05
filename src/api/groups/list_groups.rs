//! ListGroups (key 16).
//!
//! Versions: 0-5. Each shard is a broker and lists its own groups, as each broker of Kafka does. From 4 on by state (KIP-518), from 5 on by
//! type (KIP-848): `classic` or `consumer`. As in Kafka there is no way to list a part: the answer is as long as the names of all groups.

use super::super::context::ShardContext;
use super::super::registry::Served;
use super::super::{Outcome, RequestInfo};
use super::text;
use crate::group::coordinator::Kind;
use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{GroupId, ListGroupsRequest, ListGroupsResponse};
use std::rc::Rc;

pub const SERVED: Served = Served { key: 16, advertised_min: 0, accepted_min: 0, max: 5, handle };

fn handle(context: &Rc<ShardContext>, info: &RequestInfo, body: Bytes) -> Outcome {
    info.decoded(body, |request: ListGroupsRequest| {
        let wanted = |group: &Kind| {
            let states = &request.states_filter;
            let types = &request.types_filter;
            (states.is_empty() || states.iter().any(|state| state.eq_ignore_ascii_case(group.state_name())))
                && (types.is_empty() || types.iter().any(|kind| kind.eq_ignore_ascii_case(group.type_name())))
        };
        let mut response = ListGroupsResponse::default();
        for slice in context.groups.slices() {
            match slice.check_loaded() {
                Ok(()) => {}
                // The shard leads it no more: another lists its groups.
                Err(ResponseError::NotCoordinator) => continue,
                Err(error) => {
                    // Those that are there are told, and that there may be more: they are being loaded, or cannot be.
                    response.error_code = error.code();
                    continue;
                }
            }
            for id in slice.ids() {
                let listed = slice.view(&id, |view| wanted(view.kind).then(|| listed(&id, view.kind)));
                response.groups.extend(listed.flatten());
            }
        }
        info.reply(&response)
    })
}

fn listed(id: &str, group: &Kind) -> ListedGroup {
    ListedGroup::default()
        .with_group_id(GroupId(text(id)))
        .with_protocol_type(text(group.protocol_type()))
        .with_group_state(text(group.state_name()))
        .with_group_type(text(group.type_name()))
}
