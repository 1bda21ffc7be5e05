//! What a job reaches: files as streams, threads for what blocks, time.

use super::pace::Pace;
use super::rate::Bucket;
use super::stream::{Reader, Writer};
use super::thread::be_nice;
use super::{Lane, Rates};
use crate::base::faults::LostSectors;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};

/// What runs the thread's tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Engine {
    /// glommio, with a ring of its own.
    Ring,
    /// tokio, with plain threads for everything that blocks.
    Plain,
}

/// A job's means. Cheap to clone; stays on the maintenance thread.
#[derive(Clone)]
pub struct Context {
    shared: Rc<Shared>,
    lane: Lane,
}

pub(super) struct Shared {
    pub engine: Engine,
    /// Threads for what blocks.
    pub pool: tokio::runtime::Handle,
    pub rates: Arc<Rates>,
    pub stop: watch::Receiver<bool>,
    pub busy: Busy,
    pub begun: Instant,
    pub buckets: [RefCell<Bucket>; Lane::ALL.len()],
    pub pace: RefCell<Pace>,
    pub lost: LostSectors,
}

/// Operations that the kernel, or a thread, has not ended.
#[derive(Clone, Default)]
pub(super) struct Busy(Rc<(Cell<usize>, Notify)>);

/// One operation under way.
pub(super) struct Operation(Busy);

impl Context {
    pub(super) fn new(shared: Rc<Shared>, lane: Lane) -> Context {
        Context { shared, lane }
    }

    pub(super) fn stop(&self) -> watch::Receiver<bool> {
        self.shared.stop.clone()
    }

    /// Reads a part of a file from its begin to its end, past the page cache where that can be. The file must not become
    /// shorter meanwhile: that is an error (`UnexpectedEof`).
    pub async fn read(&self, path: &Path, range: Range<u64>) -> io::Result<Reader> {
        Reader::open(self.clone(), path, range).await
    }

    /// Makes a file, or empties it, to be written from its begin to its end, past the page cache where that can be.
    pub async fn write(&self, path: &Path) -> io::Result<Writer> {
        Writer::create(self.clone(), path).await
    }

    /// Runs what blocks on a thread beside, of low priority unless clients wait for it. Once it has begun it is not given up.
    pub async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        let operation = self.begin();
        let is_background = self.lane != Lane::Recovery;
        let work = self.shared.pool.spawn_blocking(move || {
            if is_background {
                be_nice();
            }
            work()
        });
        // Its end is seen even where the job is dropped here.
        let (done, result) = tokio::sync::oneshot::channel();
        self.spawn(async move {
            let _ = done.send(work.await);
            drop(operation);
        });
        result.await.map_err(|_| io::Error::other("the maintenance thread has ended"))?.map_err(io::Error::other)
    }

    /// Runs beside the job, and goes on where the job is cancelled.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        match self.shared.engine {
            Engine::Ring => drop(glommio::spawn_local(task).detach()),
            Engine::Plain => drop(tokio::task::spawn_local(task)),
        }
    }

    pub async fn sleep(&self, time: Duration) {
        match self.shared.engine {
            Engine::Ring => glommio::timer::sleep(time).await,
            Engine::Plain => tokio::time::sleep(time).await,
        }
    }

    /// Waits as long as the lane's rate limit asks for, after so many bytes. Streams do so by themselves.
    pub async fn spend(&self, bytes: usize) {
        let Shared { rates, buckets, pace, begun, .. } = &*self.shared;
        let now = begun.elapsed();
        let rate = match rates.of(self.lane) {
            0 if self.lane == Lane::Clean => pace.borrow_mut().limit(now, || rates.clients()),
            configured => configured,
        };
        let wait = buckets[self.lane.index()].borrow_mut().take(now, bytes as u64, rate);
        if !wait.is_zero() {
            self.sleep(wait).await;
        }
    }

    pub(super) fn chunks(&self) -> (usize, usize) {
        self.lane.chunks()
    }

    pub(super) fn lost(&self) -> &LostSectors {
        &self.shared.lost
    }

    pub(super) fn engine(&self) -> Engine {
        self.shared.engine
    }

    pub(super) fn begin(&self) -> Operation {
        self.shared.busy.begin()
    }
}

impl Busy {
    fn begin(&self) -> Operation {
        self.0.0.set(self.0.0.get() + 1);
        Operation(self.clone())
    }

    /// Ends when no operation is under way.
    pub async fn ended(&self) {
        while self.0.0.get() > 0 {
            self.0.1.notified().await;
        }
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        let (count, ended) = &*self.0.0;
        count.set(count.get() - 1);
        ended.notify_one();
    }
}
