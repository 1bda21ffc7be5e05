//! The tasks that work for one partition, so that closing and deleting it can wait until all have ended.

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;
use tokio::sync::Notify;

/// Counts running tasks. Waiting for them sleeps: io_uring operations are only submitted while the thread parks, so a
/// loop that yields could wait for ever.
#[derive(Default)]
pub struct Tasks {
    shared: Rc<Shared>,
}

#[derive(Default)]
struct Shared {
    running: Cell<usize>,
    ended: Notify,
}

/// Ends a task's place in the count, however the task ends.
struct Place(Rc<Shared>);

impl Tasks {
    /// Starts a task on this thread.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.shared.running.set(self.shared.running.get() + 1);
        let place = Place(Rc::clone(&self.shared));
        tokio::task::spawn_local(async move {
            let _place = place;
            task.await;
        });
    }

    /// Ends when no task runs any more, those that tasks have started included.
    pub async fn ended(&self) {
        while self.shared.running.get() > 0 {
            self.shared.ended.notified().await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.running.set(self.0.running.get() - 1);
        self.0.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn waiting_ends_with_the_last_task_even_one_that_a_task_began() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("runtime");
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let tasks = Rc::new(Tasks::default());
            let done = Rc::new(Cell::new(false));
            let (inner, set) = (Rc::clone(&tasks), Rc::clone(&done));
            tasks.spawn(async move {
                tokio::time::sleep(Duration::from_millis(5)).await;
                inner.spawn(async move {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    set.set(true);
                });
            });
            tasks.ended().await;
            assert!(done.get());
            tasks.ended().await;
        });
    }
}
