//! The thread itself: how it starts, serves its lanes, and stops.

use super::context::{Busy, Context, Engine, Shared};
use super::pace::Pace;
use super::{JobError, Lane, Maintenance, Queues, Rates, Start, queues};
use crate::base::faults::LostSectors;
use crate::base::limits::{MAINTENANCE_STOP_SECONDS_MAX, RECOVERIES_AT_ONCE_MAX};
use futures_util::future::join_all;
use glommio::{LocalExecutor, LocalExecutorBuilder, Placement};
use std::cell::RefCell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::task::Poll;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, mpsc as queue, watch};
use tracing::{info, warn};

/// How the thread runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings {
    /// No ring of its own, even where one could be had.
    pub plain: bool,
}

/// Memory that the ring registers. With its default of 10 MiB the usual limit of locked memory would be exceeded.
const RING_MEMORY_BYTES: usize = 1 << 20;
/// The others of the process run at 0. Its disk requests are of lower priority by this, too.
const NICE: i32 = 10;
/// Threads for what blocks: each recovery may need one, and the other lanes too.
const POOL_MAX: usize = RECOVERIES_AT_ONCE_MAX + 4;
/// Threads of the pool that had nothing to do so long end.
const POOL_KEEP: Duration = Duration::from_secs(10);

/// The running thread. Stops when it is dropped, too, but nobody waits for it then.
pub struct MaintenanceThread {
    stop: watch::Sender<bool>,
    ended: mpsc::Receiver<()>,
    thread: JoinHandle<()>,
}

impl MaintenanceThread {
    /// Cancels all jobs and waits until the thread has ended; false: a disk that does not answer kept it too long.
    pub fn stop(self) -> bool {
        let _ = self.stop.send(true);
        let most = Duration::from_secs(MAINTENANCE_STOP_SECONDS_MAX);
        match self.ended.recv_timeout(most) {
            Err(mpsc::RecvTimeoutError::Timeout) => {
                warn!("maintenance has not ended within {} s: the disk does not answer", most.as_secs());
                false
            }
            _ => self.thread.join().is_ok(),
        }
    }
}

/// Starts the node's maintenance thread.
pub fn start(settings: Settings) -> io::Result<(Maintenance, MaintenanceThread)> {
    start_on(settings, LostSectors::default())
}

/// The same, on a disk that has lost something.
pub fn start_on(settings: Settings, lost: LostSectors) -> io::Result<(Maintenance, MaintenanceThread)> {
    let (maintenance, receivers) = queues();
    let (stop, stopped) = watch::channel(false);
    let (ending, ended) = mpsc::channel();
    let rates = Arc::clone(&maintenance.rates);
    let thread = thread::Builder::new().name("maintenance".into()).spawn(move || {
        // Dropped at the end of the thread, whatever ends it.
        let _ending: mpsc::Sender<()> = ending;
        run(settings, receivers, (rates, lost), stopped);
    })?;
    Ok((maintenance, MaintenanceThread { stop, ended, thread }))
}

fn run(settings: Settings, queues: Queues, (rates, lost): (Arc<Rates>, LostSectors), stop: watch::Receiver<bool>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .max_blocking_threads(POOL_MAX)
        .thread_keep_alive(POOL_KEEP)
        .thread_name("maintenance-io")
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(e) => return warn!("maintenance cannot run: {e}"),
    };
    let ring = if settings.plain { None } else { ring() };
    let engine = if ring.is_some() { Engine::Ring } else { Engine::Plain };
    let busy = Busy::default();
    let shared = Shared {
        engine,
        pool: runtime.handle().clone(),
        rates,
        stop,
        busy: busy.clone(),
        begun: Instant::now(),
        buckets: Default::default(),
        pace: RefCell::new(Pace::new(Duration::ZERO)),
        lost,
    };
    let work = async move {
        serve(Rc::new(shared), queues).await;
        busy.ended().await;
    };
    match ring {
        Some(ring) => ring.run(work),
        None => tokio::task::LocalSet::new().block_on(&runtime, work),
    }
    runtime.shutdown_timeout(Duration::from_secs(1));
}

/// The lower priority counts for this thread alone, and for the threads that it starts. It cannot be given back, so it comes with
/// the first job that nobody waits for: at a start clients wait for recovery.
pub(super) fn be_nice() {
    if let Err(e) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE) {
        info!("maintenance runs at the priority of the rest: {e}");
    }
}

fn ring() -> Option<LocalExecutor> {
    let made = LocalExecutorBuilder::new(Placement::Unbound).io_memory(RING_MEMORY_BYTES).name("maintenance").make();
    made.inspect_err(|e| {
        warn!(
            "maintenance has no io_uring of its own ({e}): it reads through the page cache, and drops what it has read. \
             Should locked memory be short, raise RLIMIT_MEMLOCK (ulimit -l)"
        );
    })
    .ok()
}

async fn serve(shared: Rc<Shared>, queues: Queues) {
    let lanes = Lane::ALL.into_iter().zip(queues);
    join_all(lanes.map(|(lane, queue)| serve_lane(Context::new(Rc::clone(&shared), lane), lane, queue))).await;
}

/// Begins one job after the other, so many side by side as the lane is wide, until the node stops or nobody is left who
/// could ask for any.
async fn serve_lane(context: Context, lane: Lane, mut queue: queue::Receiver<Start>) {
    let turns = Arc::new(Semaphore::new(lane.width()));
    loop {
        let turn = Arc::clone(&turns).acquire_owned();
        let next = tokio::select! {
            biased;
            () = stopped(context.stop()) => None,
            next = async { (turn.await, queue.recv().await) } => Some(next),
        };
        let Some((turn, Some(start))) = next else { break };
        if lane != Lane::Recovery {
            be_nice();
        }
        let (job, operation) = (start(context.clone()), context.begin());
        context.spawn(async move {
            job.await;
            drop((turn, operation));
        });
    }
}

/// Ends when the node stops.
pub(super) async fn stopped(mut stop: watch::Receiver<bool>) {
    // The sender goes only with the node.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// A job that panics must not take the others with it.
pub(super) async fn unless_it_panics<T>(job: impl Future<Output = T>) -> Result<T, JobError> {
    let mut job = pin!(job);
    std::future::poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| job.as_mut().poll(context))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(answer)) => Poll::Ready(Ok(answer)),
        Err(_) => Poll::Ready(Err(JobError::Panicked)),
    })
    .await
}
