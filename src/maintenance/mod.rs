//! The node's maintenance thread: long reads and writes of files that must not disturb those who produce and consume.
//!
//! One thread for the node, pinned to nothing and of low priority (once a start has recovered its logs), with a glommio executor of its own: whole segments pass it
//! by direct I/O, several requests ahead, and leave the page cache alone. Shards and the main thread hand it *jobs*: what a job
//! is given, and what it answers, is plain data; it never touches a shard's state. Whoever asks awaits the answer, and who
//! stops awaiting cancels the job.
//!
//! ```text
//! Maintenance::run(lane, job) ─▶ the lane's bounded queue ─▶ at most Lane::width jobs side by side ─▶ oneshot answer
//!                                                            Context: read, write, blocking, sleep
//! ```
//!
//! A job ends at an `.await` when it is cancelled or the node stops: what must be done whole, like putting a file in the place of
//! another, belongs into one `Context::blocking`, which is never given up half-way. I/O that is under way is waited for before
//! the thread ends, because the kernel still has its memory.
//!
//! Where glommio cannot run (locked memory is short, no io_uring for a second ring), the same jobs run on plain threads: reads
//! go through the page cache, and what was read is dropped from it again. So does a file whose file system has no direct I/O.

mod bridge;
pub mod clean;
mod context;
mod pace;
mod rate;
pub mod scrub;
pub mod scrub_progress;
mod stream;
mod thread;

pub use bridge::Streams;
pub use context::Context;
pub use stream::{Chunk, Reader, Writer};
pub use thread::{MaintenanceThread, Settings, start, start_on};

use crate::base::limits::{
    BACKGROUND_AHEAD, BACKGROUND_CHUNK_BYTES, MAINTENANCE_AHEAD, MAINTENANCE_CHUNK_BYTES, MAINTENANCE_JOBS_WAITING_MAX,
    RECOVERIES_AT_ONCE_MAX,
};
use crate::base::metrics::ShardMetrics;
use pace::Clients;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{mpsc, oneshot};

/// What a job is for: each lane has its own queue, width and rate limit, so that one kind never waits behind another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Clients wait for the answer: opening logs, and recovering them.
    Recovery,
    /// Compaction.
    Clean,
    /// Reading what lies there, to find damage.
    Scrub,
    /// Writing down how far logs have come, so that the next recovery is short.
    Settle,
    /// Small work in the background.
    Chore,
    /// Work of the processor alone, for which a client waits.
    Ask,
}

impl Lane {
    const ALL: [Lane; 6] = [Lane::Recovery, Lane::Clean, Lane::Scrub, Lane::Settle, Lane::Chore, Lane::Ask];

    /// Jobs that run side by side.
    fn width(self) -> usize {
        match self {
            Lane::Recovery => RECOVERIES_AT_ONCE_MAX,
            Lane::Settle | Lane::Ask => 2,
            Lane::Clean | Lane::Scrub | Lane::Chore => 1,
        }
    }

    /// Bytes that a stream reads or writes at once, and how many such chunks are under way.
    fn chunks(self) -> (usize, usize) {
        match self {
            Lane::Recovery => (MAINTENANCE_CHUNK_BYTES, MAINTENANCE_AHEAD),
            Lane::Clean | Lane::Scrub | Lane::Settle | Lane::Chore | Lane::Ask => {
                (BACKGROUND_CHUNK_BYTES, BACKGROUND_AHEAD)
            }
        }
    }

    fn index(self) -> usize {
        Lane::ALL.iter().position(|lane| *lane == self).expect("all lanes are listed")
    }
}

/// Why a job has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JobError {
    #[error("the node is stopping")]
    Stopped,
    #[error("the job panicked")]
    Panicked,
}

type Start = Box<dyn FnOnce(Context) -> Pin<Box<dyn Future<Output = ()>>> + Send>;

/// Hands jobs to the maintenance thread. Cheap to clone.
#[derive(Clone)]
pub struct Maintenance {
    queues: [mpsc::Sender<Start>; Lane::ALL.len()],
    rates: Arc<Rates>,
}

/// How fast lanes may go.
#[derive(Default)]
struct Rates {
    /// Bytes per second that each lane may read and write; 0: no limit.
    lanes: [AtomicU64; Lane::ALL.len()],
    /// The shards beside whose clients the thread works.
    shards: Mutex<Vec<Arc<ShardMetrics>>>,
}

impl Rates {
    fn of(&self, lane: Lane) -> u64 {
        self.lanes[lane.index()].load(Ordering::Relaxed)
    }

    fn clients(&self) -> Clients {
        let shards = self.shards.lock().unwrap_or_else(PoisonError::into_inner);
        shards.iter().fold(Clients::default(), |sum, shard| Clients {
            moved: sum.moved.wrapping_add(shard.append_bytes.get()).wrapping_add(shard.cold_read_bytes.get()),
            to_compact: sum.to_compact.wrapping_add(shard.append_compacted_bytes.get()),
        })
    }
}

impl Maintenance {
    /// A thread that has ended: every job is answered `JobError::Stopped`.
    pub fn stopped() -> Maintenance {
        queues().0
    }

    /// Has the job run on the maintenance thread, after those that wait already, and gives its answer. Waits while the lane's
    /// queue is full. Dropping the future cancels the job: it ends at its next `.await`.
    pub async fn run<T, J>(&self, lane: Lane, job: J) -> Result<T, JobError>
    where
        T: Send + 'static,
        J: AsyncFnOnce(Context) -> T + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let start: Start = Box::new(move |context| {
            let stop = context.stop();
            Box::pin(async move {
                let job = thread::unless_it_panics(job(context));
                let (mut reply, mut job) = (reply, std::pin::pin!(job));
                let answered = tokio::select! {
                    biased;
                    () = reply.closed() => return,
                    () = thread::stopped(stop) => Err(JobError::Stopped),
                    answered = &mut job => answered,
                };
                // Who asked may just have gone.
                let _ = reply.send(answered);
            })
        });
        self.queues[lane.index()].send(start).await.map_err(|_| JobError::Stopped)?;
        answer.await.unwrap_or(Err(JobError::Stopped))
    }

    /// Bytes per second that all jobs of a lane together may read and write from now on; 0: no limit, but compaction still makes way
    /// for clients.
    pub fn set_rate(&self, lane: Lane, bytes_per_second: u64) {
        self.rates.lanes[lane.index()].store(bytes_per_second, Ordering::Relaxed);
    }

    /// Makes way for this shard's clients, too.
    pub fn work_beside(&self, shard: Arc<ShardMetrics>) {
        self.rates.shards.lock().unwrap_or_else(PoisonError::into_inner).push(shard);
    }
}

type Queues = [mpsc::Receiver<Start>; Lane::ALL.len()];

fn queues() -> (Maintenance, Queues) {
    let pairs = Lane::ALL.map(|_| mpsc::channel(MAINTENANCE_JOBS_WAITING_MAX));
    let mut receivers = Vec::with_capacity(pairs.len());
    let senders = pairs.map(|(sender, receiver)| {
        receivers.push(receiver);
        sender
    });
    let receivers = receivers.try_into().unwrap_or_else(|_| unreachable!("one for each lane"));
    (Maintenance { queues: senders, rates: Arc::default() }, receivers)
}

#[cfg(test)]
mod tests;
