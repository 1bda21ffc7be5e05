//! LeaveGroup (key 13).
//!
//! Versions: 0-5. From 3 on many members at once, static ones by their instance id alone (KIP-345); before, the one member's error is
//! that of the answer.

use super::super::context::ShardContext;
use super::super::registry::Served;
use super::super::{Outcome, RequestInfo};
use super::{code, slice_of, when_answered};
use crate::group::classic::{Effect, Event, Leaving};
use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::{LeaveGroupRequest, LeaveGroupResponse};
use kafka_protocol::protocol::StrBytes;
use std::rc::Rc;

pub const SERVED: Served = Served { key: 13, advertised_min: 0, accepted_min: 0, max: 5, handle };

const BATCHED_SINCE: i16 = 3;

fn handle(context: &Rc<ShardContext>, info: &RequestInfo, body: Bytes) -> Outcome {
    info.decoded(body, |request: LeaveGroupRequest| {
        let members = match info.version >= BATCHED_SINCE {
            true => request.members,
            false => vec![MemberIdentity::default().with_member_id(request.member_id)],
        };
        let asked = slice_of(context, &request.group_id, false).map(|slice| {
            let leaving = members.iter().map(|member| Leaving {
                member_id: member.member_id.to_string(),
                instance_id: member.group_instance_id.as_ref().map(StrBytes::to_string),
            });
            slice.ask(&request.group_id, false, |waiter| Event::Leave(waiter, leaving.collect()))
        });
        let unknown = || Ok(vec![Some(ResponseError::UnknownMemberId); members.len()]);
        let asked = match asked {
            Err(error) => return info.reply(&response(info.version, &members, Err(error))),
            Ok(None) => return info.reply(&response(info.version, &members, unknown())),
            Ok(Some(asked)) => asked,
        };
        when_answered(info, Ok(asked), move |info, answer| {
            let left = match answer {
                Ok(Effect::Left(_, left)) => left,
                Ok(_) => Err(ResponseError::UnknownServerError),
                Err(error) => Err(error),
            };
            info.answer(&response(info.version, &members, left))
        })
    })
}

fn response(
    version: i16,
    members: &[MemberIdentity],
    left: Result<Vec<Option<ResponseError>>, ResponseError>,
) -> LeaveGroupResponse {
    let response = LeaveGroupResponse::default();
    let errors = match left {
        Err(error) => return response.with_error_code(error.code()),
        Ok(errors) => errors,
    };
    if version < BATCHED_SINCE {
        return response.with_error_code(code(errors.first().copied().flatten()));
    }
    let answers = members.iter().zip(errors).map(|(member, error)| {
        MemberResponse::default()
            .with_member_id(member.member_id.clone())
            .with_group_instance_id(member.group_instance_id.clone())
            .with_error_code(code(error))
    });
    response.with_members(answers.collect())
}
