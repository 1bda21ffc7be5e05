//! The APIs of consumer groups, one file each.
//!
//! Stage one feeds the group, so that what a connection sends happens in its order; stage two waits for the answer.

pub mod consumer_group_describe;
pub mod consumer_group_heartbeat;
pub mod delete_groups;
pub mod describe_groups;
pub mod heartbeat;
pub mod join_group;
pub mod leave_group;
pub mod list_groups;
pub mod offset_commit;
pub mod offset_delete;
pub mod offset_fetch;
pub mod sync_group;

use super::context::ShardContext;
use super::{Answer, Outcome, RequestInfo};
use crate::base::limits::GROUPS_ANSWER_BYTES_MAX;
use crate::group::classic::{Effect, Event, MemberClaim, Waiter};
use crate::group::coordinator::{OFFSETS_TOPIC, Slice, partition_of};
use kafka_protocol::ResponseError;
use kafka_protocol::protocol::{Encodable, StrBytes};
use std::collections::HashSet;
use std::hash::Hash;
use std::rc::Rc;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

/// The slice of the coordinator that has a group. Where groups without a name are of old consumers, `nameless` allows them.
fn slice_of(context: &ShardContext, group: &str, nameless: bool) -> Result<Rc<Slice>, ResponseError> {
    if group.is_empty() && !nameless {
        return Err(ResponseError::InvalidGroupId);
    }
    let partitions = context.offsets_partitions().ok_or(ResponseError::NotCoordinator)?;
    let index = partition_of(group, partitions);
    match context.groups.slice_of(index) {
        Err(ResponseError::NotCoordinator) if context.leads(OFFSETS_TOPIC, index) => {
            // Its log was still being opened when the shard began to lead it, and perhaps is.
            context.lead_groups();
            let found = context.groups.slice_of(index);
            found.map_err(|_| ResponseError::CoordinatorLoadInProgress)
        }
        found => found,
    }
}

/// Has something happen to a group that exists.
fn ask(
    context: &ShardContext,
    group: &str,
    event: impl FnOnce(Waiter) -> Event,
) -> Result<oneshot::Receiver<Effect>, ResponseError> {
    let slice = slice_of(context, group, false)?;
    slice.ask(group, false, event).ok_or(ResponseError::UnknownMemberId)
}

/// The answer that a group gave; one that was dropped with its coordinator is to be asked for elsewhere.
async fn answered(answer: Result<oneshot::Receiver<Effect>, ResponseError>) -> Result<Effect, ResponseError> {
    answer?.await.map_err(|_| ResponseError::NotCoordinator)
}

/// Answers at once if the group has: it has to wait only where the answer follows from a record that is not in the log yet.
fn when_answered(
    info: &RequestInfo,
    asked: Result<oneshot::Receiver<Effect>, ResponseError>,
    then: impl FnOnce(&RequestInfo, Result<Effect, ResponseError>) -> Answer + 'static,
) -> Outcome {
    let mut asked = match asked {
        Ok(asked) => asked,
        Err(error) => return at_once(then(info, Err(error))),
    };
    match asked.try_recv() {
        Ok(effect) => at_once(then(info, Ok(effect))),
        Err(TryRecvError::Closed) => at_once(then(info, Err(ResponseError::NotCoordinator))),
        Err(TryRecvError::Empty) => {
            let info = info.clone();
            Outcome::Wait(Box::pin(async move { then(&info, answered(Ok(asked)).await) }))
        }
    }
}

fn at_once(answer: Answer) -> Outcome {
    match answer {
        Ok(frame) => Outcome::Reply(frame),
        Err(error) => Outcome::Close(error.to_string()),
    }
}

fn claim(generation: i32, member_id: &StrBytes, instance_id: Option<&StrBytes>) -> MemberClaim {
    MemberClaim { generation, member_id: member_id.to_string(), instance_id: instance_id.map(StrBytes::to_string) }
}

/// The first of each name: a request that names one thing very often must not be answered with as many copies of what is known of it.
fn distinct<T, K: Eq + Hash>(all: Vec<T>, name: impl Fn(&T) -> K) -> impl Iterator<Item = T> {
    let mut seen = HashSet::new();
    all.into_iter().filter(move |one| seen.insert(name(one)))
}

/// What an answer about many groups may still hold. Kafka has no such bound: it makes an answer of whatever a client names, and each
/// connection may ask for it.
struct Room {
    left: usize,
}

impl Room {
    fn new() -> Room {
        Room { left: GROUPS_ANSWER_BYTES_MAX }
    }

    /// What is told of the next group; when those before it have filled the answer it is not looked at, and refused.
    fn part<T: Encodable>(
        &mut self,
        version: i16,
        make: impl FnOnce() -> T,
        refuse: impl FnOnce(ResponseError) -> T,
    ) -> T {
        if self.left == 0 {
            return refuse(ResponseError::MessageTooLarge);
        }
        let part = make();
        self.left = self.left.saturating_sub(part.compute_size(version).unwrap_or(0));
        part
    }
}

/// A text of ours on its way out.
fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn code(error: Option<ResponseError>) -> i16 {
    error.map_or(0, |error| error.code())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::GroupId;
    use kafka_protocol::messages::describe_groups_response::DescribedGroup;

    #[test]
    fn groups_are_told_until_the_answer_is_full() {
        let named = |name: &str| DescribedGroup::default().with_group_id(GroupId(text(name)));
        let mut room = Room { left: 100 };
        let mut told = Vec::new();
        for name in ["a".repeat(60), "b".repeat(60), "c".repeat(60)] {
            let mut looked = false;
            let mut look = || {
                looked = true;
                named(&name)
            };
            let part = room.part(5, &mut look, |error| named(&name).with_error_code(error.code()));
            told.push((looked, part.error_code));
        }
        assert_eq!(told, [(true, 0), (true, 0), (false, ResponseError::MessageTooLarge.code())]);
    }
}
