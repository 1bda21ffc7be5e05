//! DeleteGroups (key 42), versions 0-2: forgets groups that have no members, with their offsets.

use super::super::context::ShardContext;
use super::super::registry::Served;
use super::super::{Outcome, RequestInfo};
use super::{code, slice_of};
use bytes::Bytes;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::{DeleteGroupsRequest, DeleteGroupsResponse};
use std::collections::HashSet;
use std::rc::Rc;

pub const SERVED: Served = Served { key: 42, advertised_min: 0, accepted_min: 0, max: 2, handle };

fn handle(context: &Rc<ShardContext>, info: &RequestInfo, body: Bytes) -> Outcome {
    info.decoded(body, |request: DeleteGroupsRequest| {
        let mut seen = HashSet::new();
        let mut deleting = Vec::new();
        for id in request.groups_names {
            if seen.insert(id.clone()) {
                let stored = slice_of(context, &id, true).and_then(|slice| slice.delete_group(&id));
                deleting.push((id, stored));
            }
        }
        let info = info.clone();
        Outcome::Wait(Box::pin(async move {
            let mut results = Vec::with_capacity(deleting.len());
            for (id, stored) in deleting {
                let error = match stored {
                    Ok(stored) => stored.done().await.err(),
                    Err(error) => Some(error),
                };
                results.push(DeletableGroupResult::default().with_group_id(id).with_error_code(code(error)));
            }
            info.answer(&DeleteGroupsResponse::default().with_results(results))
        }))
    })
}
