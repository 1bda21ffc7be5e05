//! JoinGroup (key 11).
//!
//! Versions: 0-9. Before version 1 the session timeout is the rebalance timeout too; from 4 on a new member is told its id first
//! (KIP-394), from 5 on members may be static (KIP-345), from 7 on the answer names the protocol type, from 9 on a leader that
//! has nothing to assign is told so (KIP-814). The reason (8, KIP-800) is not kept. Who is new is told COORDINATOR_LOAD_IN_PROGRESS while
//! the shard's groups take as much memory as they may (`coordinator::room`).

use super::super::context::ShardContext;
use super::super::registry::Served;
use super::super::{Outcome, RequestInfo};
use super::{answered, code, slice_of, text};
use crate::base::ids::Uuid;
use crate::group::classic::{Effect, JoinAnswer, JoinRequest};
use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::{JoinGroupRequest, JoinGroupResponse};
use kafka_protocol::protocol::StrBytes;
use std::rc::Rc;

pub const SERVED: Served = Served { key: 11, advertised_min: 0, accepted_min: 0, max: 9, handle };

const REBALANCE_TIMEOUT_SINCE: i16 = 1;
const MEMBER_ID_REQUIRED_SINCE: i16 = 4;
const NULL_PROTOCOL_SINCE: i16 = 7;
const SKIP_ASSIGNMENT_SINCE: i16 = 9;
const INSTANCE_ID_BYTES_MAX: usize = 249;

fn handle(context: &Rc<ShardContext>, info: &RequestInfo, body: Bytes) -> Outcome {
    info.decoded(body, |request: JoinGroupRequest| {
        let member_id = request.member_id.to_string();
        let asked = slice_of(context, &request.group_id, false)
            .and_then(|slice| slice.join(&request.group_id, joining(info, &request)?));
        let info = info.clone();
        Outcome::Wait(Box::pin(async move {
            let answer = match answered(asked).await {
                Ok(Effect::Joined(_, answer)) => answer,
                Ok(_) => JoinAnswer::refused(&member_id, ResponseError::UnknownServerError),
                Err(error) => JoinAnswer::refused(&member_id, error),
            };
            info.answer(&response(info.version, answer))
        }))
    })
}

fn joining(info: &RequestInfo, request: &JoinGroupRequest) -> Result<JoinRequest, ResponseError> {
    let client_id = info.client_id.as_ref().map(StrBytes::to_string).unwrap_or_default();
    let instance_id = request.group_instance_id.as_ref().map(StrBytes::to_string);
    if instance_id.as_ref().is_some_and(|id| id.is_empty() || id.len() > INSTANCE_ID_BYTES_MAX) {
        return Err(ResponseError::InvalidRequest);
    }
    let fresh_id = format!("{}-{}", instance_id.as_ref().unwrap_or(&client_id), Uuid::new_v4().hyphenated());
    let rebalance_timeout_ms = match info.version >= REBALANCE_TIMEOUT_SINCE {
        true => request.rebalance_timeout_ms,
        false => request.session_timeout_ms,
    };
    // Copied: a slice would keep the whole frame for as long as the member is there.
    let protocols = request.protocols.iter().map(|one| (one.name.to_string(), Bytes::copy_from_slice(&one.metadata)));
    Ok(JoinRequest {
        member_id: request.member_id.to_string(),
        fresh_id,
        requires_known_id: info.version >= MEMBER_ID_REQUIRED_SINCE && instance_id.is_none(),
        instance_id,
        client_id,
        client_host: format!("/{}", info.peer_addr.ip()),
        session_timeout_ms: request.session_timeout_ms,
        rebalance_timeout_ms: rebalance_timeout_ms.max(0),
        protocol_type: request.protocol_type.to_string(),
        protocols: protocols.collect(),
        can_skip_assignment: info.version >= SKIP_ASSIGNMENT_SINCE,
    })
}

fn response(version: i16, answer: JoinAnswer) -> JoinGroupResponse {
    let no_protocol = if version >= NULL_PROTOCOL_SINCE { None } else { Some(StrBytes::default()) };
    let members = answer.members.iter().map(|member| {
        JoinGroupResponseMember::default()
            .with_member_id(text(&member.member_id))
            .with_group_instance_id(member.instance_id.as_deref().map(text))
            .with_metadata(member.metadata.clone())
    });
    JoinGroupResponse::default()
        .with_error_code(code(answer.error))
        .with_generation_id(answer.generation)
        .with_protocol_type(answer.protocol_type.as_deref().map(text))
        .with_protocol_name(answer.protocol.as_deref().map(text).or(no_protocol))
        .with_leader(answer.leader.as_deref().map(text).unwrap_or_default())
        .with_skip_assignment(answer.skip_assignment)
        .with_member_id(text(&answer.member_id))
        .with_members(members.collect())
}
