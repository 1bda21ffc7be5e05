//! SyncGroup (key 14).
//!
//! Versions: 0-5. From 5 on both sides name protocol type and protocol (KIP-559), which must be the group's.

use super::super::context::ShardContext;
use super::super::registry::Served;
use super::super::{Outcome, RequestInfo};
use super::{answered, ask, claim, code, text};
use crate::group::classic::{Effect, Event, SyncAnswer, SyncRequest};
use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{SyncGroupRequest, SyncGroupResponse};
use kafka_protocol::protocol::StrBytes;
use std::rc::Rc;

pub const SERVED: Served = Served { key: 14, advertised_min: 0, accepted_min: 0, max: 5, handle };

const PROTOCOL_SINCE: i16 = 5;

fn handle(context: &Rc<ShardContext>, info: &RequestInfo, body: Bytes) -> Outcome {
    info.decoded(body, |request: SyncGroupRequest| {
        let is_named = request.protocol_type.is_some() && request.protocol_name.is_some();
        if info.version >= PROTOCOL_SINCE && !is_named {
            return info.reply(&response(SyncAnswer::refused(ResponseError::InconsistentGroupProtocol)));
        }
        let asked = ask(context, &request.group_id, |waiter| Event::Sync(waiter, syncing(&request)));
        let info = info.clone();
        Outcome::Wait(Box::pin(async move {
            let answer = match answered(asked).await {
                Ok(Effect::Synced(_, answer)) => answer,
                Ok(_) => SyncAnswer::refused(ResponseError::UnknownServerError),
                // The rebalance is lost with the coordinator's memory: joining again needs no other coordinator.
                Err(ResponseError::CoordinatorLoadInProgress) => {
                    SyncAnswer::refused(ResponseError::RebalanceInProgress)
                }
                Err(error) => SyncAnswer::refused(error),
            };
            info.answer(&response(answer))
        }))
    })
}

fn syncing(request: &SyncGroupRequest) -> SyncRequest {
    let assignments = request.assignments.iter();
    SyncRequest {
        claim: claim(request.generation_id, &request.member_id, request.group_instance_id.as_ref()),
        protocol_type: request.protocol_type.as_ref().map(StrBytes::to_string),
        protocol: request.protocol_name.as_ref().map(StrBytes::to_string),
        // Copied: a slice would keep the whole frame for as long as the generation lasts.
        assignments: assignments
            .map(|one| (one.member_id.to_string(), Bytes::copy_from_slice(&one.assignment)))
            .collect(),
    }
}

fn response(answer: SyncAnswer) -> SyncGroupResponse {
    SyncGroupResponse::default()
        .with_error_code(code(answer.error))
        .with_protocol_type(answer.protocol_type.as_deref().map(text))
        .with_protocol_name(answer.protocol.as_deref().map(text))
        .with_assignment(answer.assignment)
}
