//! Requests that wait for a partition: produce requests for their records to be safe, fetch requests for more records.
//! Waiting costs nothing: no timer, no task, no poll until the append or flush that ends it.

use crate::base::ids::Offset;
use slab::Slab;
use smallvec::SmallVec;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// Why a batch that was taken will not be answered as appended. It may be in the log all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The log could not be written or synced.
    Failed,
    /// The topic was deleted.
    Deleted,
    /// Another broker leads the partition now.
    Moved,
}

/// One produce request's wait for all of its partitions.
#[derive(Default)]
pub struct AppendWait {
    remaining: Cell<u32>,
    /// Places in the request of the partitions whose batch was lost.
    failed: RefCell<SmallVec<[(u32, Lost); 2]>>,
    waker: Cell<Option<Waker>>,
}

impl AppendWait {
    pub fn new() -> Rc<AppendWait> {
        Rc::new(AppendWait::default())
    }

    /// Nothing is left to wait for. A failure is told by `done` only.
    pub fn is_done(&self) -> bool {
        self.remaining.get() == 0
    }

    /// Ends when every partition has answered; gives the places of those that failed.
    pub async fn done(&self) -> SmallVec<[(u32, Lost); 2]> {
        poll_fn(|context| {
            if self.remaining.get() == 0 {
                return Poll::Ready(());
            }
            self.waker.set(Some(context.waker().clone()));
            Poll::Pending
        })
        .await;
        self.failed.take()
    }

    fn answered(&self) {
        self.remaining.set(self.remaining.get() - 1);
        if self.remaining.get() == 0
            && let Some(waker) = self.waker.take()
        {
            waker.wake();
        }
    }
}

/// Produce requests in the order of their offsets.
#[derive(Default)]
pub struct AppendWaiters {
    queue: RefCell<VecDeque<(Offset, u32, Rc<AppendWait>)>>,
}

impl AppendWaiters {
    /// `wait` goes on when the watched end reaches `end`; `place` names the partition within the request.
    pub fn add(&self, end: Offset, place: u32, wait: &Rc<AppendWait>) {
        wait.remaining.set(wait.remaining.get() + 1);
        let mut queue = self.queue.borrow_mut();
        // A retry of an earlier batch waits for an earlier end than its neighbours.
        let at = queue.iter().rposition(|(other, ..)| *other <= end).map_or(0, |i| i + 1);
        queue.insert(at, (end, place, Rc::clone(wait)));
    }

    /// The end that the first of them waits for.
    pub fn first(&self) -> Option<Offset> {
        self.queue.borrow().front().map(|(end, ..)| *end)
    }

    /// The watched end has reached `end`.
    pub fn reached(&self, end: Offset) {
        let mut queue = self.queue.borrow_mut();
        while let Some((_, _, wait)) = queue.pop_front_if(|(wanted, ..)| *wanted <= end) {
            wait.answered();
        }
    }

    /// What waits for more than `end` will not be reached, as far as anybody knows.
    pub fn fail_beyond(&self, end: Offset, lost: Lost) {
        let beyond = {
            let mut queue = self.queue.borrow_mut();
            let at = queue.partition_point(|(wanted, ..)| *wanted <= end);
            queue.split_off(at)
        };
        for (_, place, wait) in beyond {
            wait.failed.borrow_mut().push((place, lost));
            wait.answered();
        }
    }

    /// Nothing that waits will be reached.
    pub fn fail(&self, lost: Lost) {
        for (_, place, wait) in self.queue.take() {
            wait.failed.borrow_mut().push((place, lost));
            wait.answered();
        }
    }
}

/// Fetch requests that wait for more records.
#[derive(Default)]
pub struct FetchWaiters {
    wakers: RefCell<Slab<Rc<FetchWait>>>,
}

/// One fetch request's wait: woken by any of its partitions.
#[derive(Default)]
pub struct FetchWait {
    woken: Cell<bool>,
    waker: Cell<Option<Waker>>,
}

impl FetchWait {
    /// Ends when one of the partitions has more records than when this was last asked.
    pub async fn woken(&self) {
        poll_fn(|context| {
            if self.woken.take() {
                return Poll::Ready(());
            }
            self.waker.set(Some(context.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    fn wake(&self) {
        self.woken.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl FetchWaiters {
    /// The caller must `remove` the key when it waits no more.
    pub fn add(&self, wait: &Rc<FetchWait>) -> usize {
        self.wakers.borrow_mut().insert(Rc::clone(wait))
    }

    pub fn remove(&self, key: usize) {
        self.wakers.borrow_mut().remove(key);
    }

    pub fn wake_all(&self) {
        for (_, wait) in self.wakers.borrow().iter() {
            wait.wake();
        }
    }

    pub fn len(&self) -> usize {
        self.wakers.borrow().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::pin;
    use std::task::Context;

    fn is_done(future: impl Future<Output = SmallVec<[(u32, Lost); 2]>>) -> Option<Vec<(u32, Lost)>> {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(failed) => Some(failed.to_vec()),
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_request_waits_for_all_its_partitions() {
        let (a, b) = (AppendWaiters::default(), AppendWaiters::default());
        let wait = AppendWait::new();
        a.add(Offset(5), 0, &wait);
        b.add(Offset(9), 1, &wait);
        a.reached(Offset(5));
        b.reached(Offset(8));
        assert_eq!(is_done(wait.done()), None);
        b.fail(Lost::Deleted);
        assert_eq!(is_done(wait.done()), Some(vec![(1, Lost::Deleted)]));
        assert_eq!((a.first(), b.first()), (None, None));
    }

    #[test]
    fn a_retry_of_an_older_batch_does_not_hold_up_others() {
        let waiters = AppendWaiters::default();
        let (new, retry) = (AppendWait::new(), AppendWait::new());
        waiters.add(Offset(10), 0, &new);
        waiters.add(Offset(5), 0, &retry);
        assert_eq!(waiters.first(), Some(Offset(5)));
        waiters.reached(Offset(5));
        assert_eq!(is_done(retry.done()), Some(vec![]));
        assert_eq!(is_done(new.done()), None);
    }
}
