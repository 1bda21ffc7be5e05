//! Heartbeats of members that subscribe to patterns: before such a one is decided, the patterns are held against the topics on the maintenance
//! thread, in the order in which they came, for one heartbeat of the shard at a time. What the first one finds most of the others need no more.
//!
//! A heartbeat that waits is decided whether its connection stays or not: so a client that leaves does not free the turn while its pattern
//! still keeps a processor busy. What the same member sends meanwhile waits behind it, its goodbye included: decided first it would
//! be undone, or the older one would tell of partitions that the member has been given or has given back since.

use super::consumer::Answered;
use super::kind::Kind;
use super::slice::Slice;
use crate::base::limits::{PATTERNS_SECONDS_MAX, PATTERNS_WAITING_MAX};
use crate::group::consumer::pattern::{Matches, NO_MATCHES};
use crate::group::consumer::{Beaten, Env, Group, Heartbeat, Refusal};
use crate::maintenance::{JobError, Lane, Maintenance};
use kafka_protocol::ResponseError;
use rustix::time::{ClockId, clock_gettime};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::{Semaphore, oneshot};
use tracing::warn;

/// Whose turn it is, and who waits for one.
pub(super) struct Turn {
    one: Semaphore,
    /// How many heartbeats of a member wait, by group and member.
    waiting: RefCell<HashMap<(String, String), usize>>,
}

impl Default for Turn {
    fn default() -> Turn {
        Turn { one: Semaphore::new(1), waiting: RefCell::default() }
    }
}

impl Turn {
    /// How many heartbeats are not decided yet, of whomever.
    fn heartbeats(&self) -> usize {
        self.waiting.borrow().values().sum()
    }

    fn is_waiting(&self, id: &str, request: &Heartbeat) -> bool {
        let waiting = self.waiting.borrow();
        // Most of the time nobody waits: then a heartbeat copies no names.
        !waiting.is_empty() && waiting.contains_key(&(id.to_owned(), request.member_id.clone()))
    }
}

/// A heartbeat that is not decided yet.
struct Place {
    slice: Rc<Slice>,
    member: (String, String),
}

impl Place {
    fn take(slice: &Rc<Slice>, id: &str, request: &Heartbeat) -> Place {
        let member = (id.to_owned(), request.member_id.clone());
        *slice.shared.patterns.waiting.borrow_mut().entry(member.clone()).or_default() += 1;
        Place { slice: Rc::clone(slice), member }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut waiting = self.slice.shared.patterns.waiting.borrow_mut();
        let left = waiting.get_mut(&self.member).map_or(0, |heartbeats| {
            *heartbeats -= 1;
            *heartbeats
        });
        if left == 0 {
            waiting.remove(&self.member);
        }
    }
}

impl Slice {
    /// A heartbeat needs patterns held against the topics first, or comes behind one that does: it goes by `begin_with_patterns`.
    pub fn wants_patterns(&self, id: &str, request: &Heartbeat) -> bool {
        let turn = &self.shared.patterns;
        if turn.is_waiting(id, request) {
            return true;
        }
        if self.patterns_wanted(id, request).is_empty() {
            return false;
        }
        // While others have the turn, who is known goes on with what is known; a later heartbeat of the group asks again.
        turn.one.available_permits() > 0 || !self.is_settled(id, request)
    }

    /// The same as `heartbeat`, once its patterns have been held against the topics.
    pub fn begin_with_patterns(
        self: &Rc<Self>,
        id: &str,
        request: Heartbeat,
        maintenance: &Maintenance,
    ) -> oneshot::Receiver<Result<Answered<Beaten>, Refusal>> {
        let (decided, answer) = oneshot::channel();
        if self.shared.patterns.heartbeats() >= PATTERNS_WAITING_MAX {
            // Members ask again after this one.
            let _ = decided.send(Err(Refusal::new(ResponseError::CoordinatorLoadInProgress, "")));
            return answer;
        }
        let place = Place::take(self, id, &request);
        let (this, id, maintenance) = (Rc::clone(self), id.to_owned(), maintenance.clone());
        tokio::task::spawn_local(async move {
            let answered = this.with_patterns(&id, &request, &maintenance).await;
            drop(place);
            // Its connection may be gone.
            let _ = decided.send(answered);
        });
        answer
    }

    async fn with_patterns(
        self: &Rc<Self>,
        id: &str,
        request: &Heartbeat,
        maintenance: &Maintenance,
    ) -> Result<Answered<Beaten>, Refusal> {
        let refused = |error| Refusal::new(error, "");
        let turn = self.shared.patterns.one.acquire().await;
        let _turn = turn.map_err(|_| refused(ResponseError::UnknownServerError))?;
        self.check_loaded().map_err(refused)?;
        let (patterns, image) = (self.patterns_wanted(id, request), self.shared.image());
        if patterns.is_empty() {
            return self.heartbeat(id, request, &NO_MATCHES);
        }
        let look = move || {
            let begun = processor_time();
            Matches::of(&patterns, &image, || {
                processor_time().saturating_sub(begun) < Duration::from_secs(PATTERNS_SECONDS_MAX)
            })
        };
        let looked = maintenance.run(Lane::Ask, async move |context| context.blocking(look).await).await;
        match looked {
            Ok(Ok(matches)) => {
                self.check_loaded().map_err(refused)?;
                self.heartbeat(id, request, &matches)
            }
            Err(JobError::Stopped) => Err(refused(ResponseError::NotCoordinator)),
            Ok(Err(_)) | Err(JobError::Panicked) => {
                warn!("group {id}: the patterns of its members cannot be held against the topics");
                Err(refused(ResponseError::UnknownServerError))
            }
        }
    }

    fn patterns_wanted(&self, id: &str, request: &Heartbeat) -> Vec<String> {
        self.ask_group(id, request, |group, env| group.patterns_wanted(self.now_ms(), env, request)).unwrap_or_default()
    }

    /// The member is there, and its pattern, if it has one, was held against the topics before.
    fn is_settled(&self, id: &str, request: &Heartbeat) -> bool {
        self.ask_group(id, request, |group, _| group.knows_pattern_of(request)).unwrap_or_default()
    }

    /// None: the request is refused whatever the group is.
    fn ask_group<T>(&self, id: &str, request: &Heartbeat, ask: impl FnOnce(&Group, &Env<'_>) -> T) -> Option<T> {
        let (settings, image) = (self.shared.settings(), self.shared.image());
        let env = Env::new(&image, &settings.consumer);
        request.check(env.limits).ok()?;
        match self.groups.borrow().get(id).map(|entry| &entry.kind) {
            Some(Kind::Consumer(group)) => Some(ask(group, &env)),
            Some(Kind::Classic(_)) | None => Some(ask(&Group::default(), &env)),
        }
    }
}

/// What this thread has had of a processor.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
