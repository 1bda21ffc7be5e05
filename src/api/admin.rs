//! What the APIs have in common that change the cluster: the command is sent in stage one, its answer is awaited in
//! stage two, and a client that asked for less patience than the work needs is told so while the work goes on.

use super::now_or_never;
use crate::base::limits::CONTROL_ANSWER_MS_MAX;
use crate::controller::handle::{AdminError, AdminResult};
use kafka_protocol::ResponseError;
use kafka_protocol::protocol::StrBytes;
use std::future::Future;
use std::time::Duration;
use tokio::task::JoinHandle;

/// How long a client waits for the effect of its request (`timeout.ms` of the request).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    limit: Duration,
    none: bool,
}

impl Patience {
    /// Of a request that has no such field.
    pub const DEFAULT: Patience = Patience { limit: Duration::from_millis(CONTROL_ANSWER_MS_MAX), none: false };

    /// Zero and less mean that the client does not wait for the effect, only for the checks (Kafka's rule): what is
    /// accepted is then answered with REQUEST_TIMED_OUT. A request that only validates has no effect to wait for.
    pub fn of_request(timeout_ms: i32, validate_only: bool) -> Patience {
        match u64::try_from(timeout_ms) {
            Ok(ms) if ms > 0 => Patience { limit: Duration::from_millis(ms), none: false },
            _ => Patience { none: !validate_only, ..Patience::DEFAULT },
        }
    }

    /// The result as this client is to be told of it.
    pub fn told<T>(self, result: AdminResult<T>) -> AdminResult<T> {
        match result {
            Ok(_) if self.none => Err(timed_out()),
            result => result,
        }
    }
}

/// A command on its way through the control plane, which handles commands in the order in which they were sent.
pub struct Pending<T> {
    work: JoinHandle<AdminResult<Vec<AdminResult<T>>>>,
    /// How many results are due.
    count: usize,
}

impl<T: 'static> Pending<T> {
    /// Sends a command about `count` things now, to be awaited later.
    ///
    /// It is in the queue to the control plane when this returns, or has its place in line for a full one: the queue is
    /// fair, so the order of requests is kept. A task of its own drives it from there on, since a connection polls an
    /// answer only when its turn has come.
    pub fn send(
        patience: Patience,
        count: usize,
        command: impl Future<Output = AdminResult<Vec<AdminResult<T>>>> + 'static,
    ) -> Self {
        let mut command = Box::pin(tokio::time::timeout(patience.limit, command));
        let begun = now_or_never(command.as_mut());
        let work = tokio::task::spawn_local(async move {
            let done = match begun {
                Some(done) => done,
                None => command.await,
            };
            done.unwrap_or_else(|_| Err(timed_out()))
        });
        Pending { work, count }
    }

    /// One result for each thing, in the order asked.
    pub async fn results(mut self) -> Vec<AdminResult<T>> {
        let lost = || AdminError { code: ResponseError::UnknownServerError, message: None };
        let error = match (&mut self.work).await {
            Ok(Ok(results)) if results.len() == self.count => return results,
            Ok(Err(error)) => error,
            Ok(Ok(_)) | Err(_) => lost(),
        };
        (0..self.count).map(|_| Err(error.clone())).collect()
    }
}

/// Who asked is gone: what the control plane has is done all the same, as in Kafka, but what still waits in line goes.
/// Otherwise clients that ask and leave could have the broker hold any number of requests.
impl<T> Drop for Pending<T> {
    fn drop(&mut self) {
        self.work.abort();
    }
}

/// An error's code on the wire; 0 for none.
pub fn code(error: Option<&AdminError>) -> i16 {
    error.map_or(0, |error| error.code.code())
}

/// An error's message on the wire: null where there is none.
pub fn message(error: Option<&AdminError>) -> Option<StrBytes> {
    error.and_then(|error| error.message.clone()).map(StrBytes::from_string)
}

/// A refusal in Kafka's words.
pub fn refusal(code: ResponseError, message: impl Into<String>) -> AdminError {
    AdminError { code, message: Some(message.into()) }
}

fn timed_out() -> AdminError {
    AdminError { code: ResponseError::RequestTimedOut, message: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::limits::CONTROL_COMMAND_BYTES_MAX;
    use crate::controller::handle::{Command, ControlHandle, TopicRef};
    use tokio::sync::mpsc;

    fn deleting(control: &ControlHandle, topic: &str) -> Pending<(String, crate::base::ids::TopicId)> {
        let (control, topics) = (control.clone(), vec![TopicRef::Name(topic.to_string())]);
        Pending::send(Patience::DEFAULT, 1, async move { control.delete_topics(topics).await })
    }

    fn queued(commands: &mut mpsc::Receiver<Command>) -> Vec<String> {
        let mut names = Vec::new();
        while let Ok(command) = commands.try_recv() {
            let Command::DeleteTopics { topics, .. } = command else { panic!("another command") };
            let [TopicRef::Name(name)] = &topics[..] else { panic!("one topic by name") };
            names.push(name.clone());
        }
        names
    }

    /// Clients that asked and left had their requests held, without bound, for as long as the control plane was busy.
    #[test]
    fn who_leaves_has_done_what_was_queued_and_nothing_else_held() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let (sender, mut commands) = mpsc::channel(1);
            let control = ControlHandle::new(sender, Default::default());
            // Even if its connection ends at once.
            drop(deleting(&control, "queued"));
            for _ in 0..100 {
                drop(deleting(&control, "in line"));
            }
            let stays = deleting(&control, "stays");
            tokio::time::sleep(Duration::from_millis(1)).await;
            assert_eq!(queued(&mut commands), ["queued"]);
            tokio::time::sleep(Duration::from_millis(1)).await;
            assert_eq!(queued(&mut commands), ["stays"]);
            drop(stays);
        });
    }

    /// Only the number of commands was bounded: clients that sent large ones and left had gigabytes held for them.
    #[test]
    fn large_commands_wait_for_room_and_are_not_overtaken() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let (sender, mut commands) = mpsc::channel(256);
            let control = ControlHandle::new(sender, Default::default());
            let large = "x".repeat(CONTROL_COMMAND_BYTES_MAX / 4);
            let sent: Vec<_> = (0..10).map(|_| deleting(&control, &large)).collect();
            let huge = deleting(&control, &"y".repeat(2 * CONTROL_COMMAND_BYTES_MAX));
            let small = deleting(&control, "small");
            let mut rounds = Vec::new();
            while rounds.last() != Some(&vec![b's']) {
                tokio::time::sleep(Duration::from_millis(1)).await;
                rounds.push(queued(&mut commands).iter().map(|name| name.as_bytes()[0]).collect());
            }
            assert_eq!(rounds, [&b"xxx"[..], b"xxx", b"xxx", b"x", b"y", b"s"]);
            drop((sent, huge, small));
        });
    }
}
