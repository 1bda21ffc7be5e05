//! Who is in charge of a group, and requests that go there.

use crate::client::admin::text;
use crate::client::cluster::{Cluster, Retry, Target};
use crate::client::error::ClientError;
use kafka_protocol::messages::{FindCoordinatorRequest, FindCoordinatorResponse};
use kafka_protocol::protocol::Request;

const KEY_TYPE_GROUP: i8 = 0;
const KEY_TYPE_SINCE: i16 = 1;
/// Many groups in one request (KIP-699).
const BATCHED_SINCE: i16 = 4;

/// Sends a request to a group's coordinator and looks for errors in its answer with `check`; a retriable one is tried again, after
/// asking anew for the coordinator, until `retry_for` is over. The answer comes with the broker that gave it.
pub fn call<R: Request>(
    cluster: &mut Cluster,
    group: &str,
    build: impl Fn(i16) -> R,
    check: impl Fn(&R::Response) -> Result<(), ClientError>,
) -> Result<(i32, R::Response), ClientError> {
    let mut retry = Retry::new(cluster.options().retry_for);
    loop {
        let outcome = try_find(cluster, group).and_then(|id| {
            let answer = cluster.try_call(Target::Broker(id), &build)?;
            check(&answer).map(|()| (id, answer))
        });
        match outcome {
            Ok(answered) => return Ok(answered),
            Err(error) => retry.pause(error)?,
        }
    }
}

/// The broker that has the group, asked for once.
pub fn try_find(cluster: &mut Cluster, group: &str) -> Result<i32, ClientError> {
    let build = |version: i16| match version {
        BATCHED_SINCE.. => {
            FindCoordinatorRequest::default().with_key_type(KEY_TYPE_GROUP).with_coordinator_keys(vec![text(group)])
        }
        KEY_TYPE_SINCE.. => FindCoordinatorRequest::default().with_key(text(group)).with_key_type(KEY_TYPE_GROUP),
        _ => FindCoordinatorRequest::default().with_key(text(group)),
    };
    let answer = cluster.try_call(Target::Any, build)?;
    let id = read(group, &answer)?;
    if !cluster.known().brokers.contains_key(&id) {
        cluster.try_metadata(&crate::client::metadata::Topics::None, false)?;
    }
    Ok(id)
}

fn read(group: &str, answer: &FindCoordinatorResponse) -> Result<i32, ClientError> {
    let what = || format!("coordinator of group {group}");
    // Up to version 3 the answer is of one group, and its fields are the message's own.
    let (id, code, message) = match answer.coordinators.first() {
        Some(found) => (found.node_id.0, found.error_code, found.error_message.as_deref()),
        None => (answer.node_id.0, answer.error_code, answer.error_message.as_deref()),
    };
    match ClientError::from_code(what(), code, message) {
        Some(error) => Err(error),
        None if id < 0 => Err(ClientError::Invalid(format!("{}: the broker's answer names none", what()))),
        None => Ok(id),
    }
}
