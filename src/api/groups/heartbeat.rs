//! Heartbeat (key 12).
//!
//! Versions: 0-4. While the group's coordinator loads, members are told that all is well, as Kafka does: they can do nothing about it.

use super::super::context::ShardContext;
use super::super::registry::Served;
use super::super::{Outcome, RequestInfo};
use super::{ask, claim, code, when_answered};
use crate::group::classic::{Effect, Event};
use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{HeartbeatRequest, HeartbeatResponse};
use std::rc::Rc;

pub const SERVED: Served = Served { key: 12, advertised_min: 0, accepted_min: 0, max: 4, handle };

fn handle(context: &Rc<ShardContext>, info: &RequestInfo, body: Bytes) -> Outcome {
    info.decoded(body, |request: HeartbeatRequest| {
        let claim = claim(request.generation_id, &request.member_id, request.group_instance_id.as_ref());
        let asked = ask(context, &request.group_id, |waiter| Event::Heartbeat(waiter, claim));
        when_answered(info, asked, |info, answer| match answer {
            Ok(Effect::Beaten(_, error)) => info.answer(&response(error)),
            Err(ResponseError::CoordinatorLoadInProgress) => info.answer(&response(None)),
            Err(error) => info.answer(&response(Some(error))),
            Ok(_) => info.answer(&response(Some(ResponseError::UnknownServerError))),
        })
    })
}

fn response(error: Option<ResponseError>) -> HeartbeatResponse {
    HeartbeatResponse::default().with_error_code(code(error))
}
