//! One pinned thread per shard, with an io_uring runtime of its own.
//!
//! A panic in any task of a shard ends the process: a broker that has lost one of its cores silently would keep its
//! leaderships and answer nothing. Supervisors restart a process; they do not see a dead thread.

use crate::base::ids::ShardId;
use std::cell::Cell;
use std::future::Future;
use std::io;
use std::sync::{Once, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// Submission entries of a shard's ring.
pub const RING_ENTRIES: u32 = 256;
/// Completion entries of a shard's ring: more operations than this in flight would spill in the kernel.
pub const RING_COMPLETIONS: u32 = 4096;
/// How long ring creation is retried: rings of a process that just ended are freed in the background.
const RING_RETRY_MAX: Duration = Duration::from_secs(3);

/// Why a shard's thread could not start, or how it ended.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    #[error("shard {shard}: cannot start a thread: {source}")]
    Thread { shard: ShardId, source: io::Error },
    #[error("shard {shard}: cannot pin its thread to CPU {cpu}: {source}")]
    Pin { shard: ShardId, cpu: usize, source: io::Error },
    #[error("shard {shard}: cannot create an io_uring: {source}{hint}")]
    Ring { shard: ShardId, source: io::Error, hint: &'static str },
    #[error("shard {shard} panicked")]
    Panicked { shard: ShardId },
}

/// CPUs that this process may run on, in order; one entry per CPU.
pub fn allowed_cpus() -> Vec<usize> {
    let mut cpus: Vec<usize> =
        core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| core.id).collect();
    cpus.sort_unstable();
    cpus.dedup();
    cpus
}

/// The CPU of a shard when the node uses `cores` of `allowed`: shards beyond that share cores, evenly.
pub fn cpu_of(shard: ShardId, allowed: &[usize], cores: usize) -> Option<usize> {
    let cores = cores.clamp(1, allowed.len().max(1));
    allowed.get(usize::from(shard.0) % cores).copied()
}

/// A running shard thread.
pub struct ShardThread<T> {
    shard: ShardId,
    thread: thread::JoinHandle<Option<T>>,
}

impl<T> ShardThread<T> {
    /// Blocks until the shard's main has returned and its runtime is gone.
    pub fn join(self) -> Result<T, RuntimeError> {
        self.thread.join().ok().flatten().ok_or(RuntimeError::Panicked { shard: self.shard })
    }

    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }
}

/// Starts the thread of `shard`, pinned to `cpu` before it allocates anything (first touch decides the memory's NUMA
/// node), and runs `main` on its runtime. Returns once the runtime exists.
///
/// `main` must return only when no file operation is in flight: dropping a tokio-uring runtime frees the buffers of
/// operations that the kernel has not finished.
pub fn spawn<T, M, F>(shard: ShardId, cpu: Option<usize>, main: M) -> Result<ShardThread<T>, RuntimeError>
where
    T: Send + 'static,
    M: FnOnce() -> F + Send + 'static,
    F: Future<Output = T> + 'static,
{
    end_process_when_a_shard_panics();
    let (started, outcome) = mpsc::sync_channel::<Result<(), RuntimeError>>(1);
    let thread = thread::Builder::new()
        .name(format!("shard-{shard}"))
        .spawn(move || {
            let runtime = match pin(shard, cpu).and_then(|()| create_runtime(shard)) {
                Ok(runtime) => runtime,
                Err(error) => {
                    let _ = started.send(Err(error));
                    return None;
                }
            };
            PANIC_ENDS_PROCESS.set(true);
            let _ = started.send(Ok(()));
            drop(started);
            let result = runtime.block_on(main());
            drop(runtime);
            Some(result)
        })
        .map_err(|source| RuntimeError::Thread { shard, source })?;
    match outcome.recv() {
        Ok(Ok(())) => Ok(ShardThread { shard, thread }),
        Ok(Err(error)) => {
            let _ = thread.join();
            Err(error)
        }
        Err(_) => Err(RuntimeError::Panicked { shard }),
    }
}

thread_local! {
    static PANIC_ENDS_PROCESS: Cell<bool> = const { Cell::new(false) };
}

/// Hooks panics once per process; only threads that run a shard are affected.
fn end_process_when_a_shard_panics() {
    static HOOKED: Once = Once::new();
    HOOKED.call_once(|| {
        let earlier = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            earlier(panic);
            // A panic within a thread-local's destructor comes after the flag is gone.
            if PANIC_ENDS_PROCESS.try_with(Cell::get).unwrap_or(false) {
                tracing::error!("a shard panicked: the process ends, so that its leaderships move elsewhere");
                std::process::abort();
            }
        }));
    });
}

fn pin(shard: ShardId, cpu: Option<usize>) -> Result<(), RuntimeError> {
    let Some(cpu) = cpu else { return Ok(()) };
    let refused = |source| RuntimeError::Pin { shard, cpu, source };
    if cpu >= rustix::thread::CpuSet::MAX_CPU {
        return Err(refused(io::Error::from(io::ErrorKind::InvalidInput)));
    }
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    rustix::thread::sched_setaffinity(None, &set).map_err(|error| refused(error.into()))
}

fn create_runtime(shard: ShardId) -> Result<tokio_uring::Runtime, RuntimeError> {
    let mut ring = tokio_uring::uring_builder();
    ring.setup_cqsize(RING_COMPLETIONS);
    let mut builder = tokio_uring::builder();
    builder.entries(RING_ENTRIES).uring_builder(&ring);
    let give_up = Instant::now() + RING_RETRY_MAX;
    loop {
        match tokio_uring::Runtime::new(&builder) {
            Ok(runtime) => return Ok(runtime),
            Err(error) if is_passing(&error) && Instant::now() < give_up => thread::sleep(Duration::from_millis(20)),
            Err(source) => return Err(RuntimeError::Ring { shard, hint: ring_hint(&source), source }),
        }
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOMEM | libc::EAGAIN))
}

/// What an operator can do about a ring that the kernel refused.
fn ring_hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ENOMEM) => {
            "; locked memory is short: raise RLIMIT_MEMLOCK (systemd: LimitMEMLOCK=infinity; shell: ulimit -l unlimited)"
        }
        Some(libc::EPERM) => {
            "; io_uring is forbidden here: see sysctl kernel.io_uring_disabled, or the container's seccomp profile"
        }
        Some(libc::ENOSYS) => "; this kernel has no io_uring (Linux 5.11 or newer is needed)",
        Some(libc::EMFILE | libc::ENFILE) => "; no file descriptor is left: raise LimitNOFILE",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_runs_pinned_and_returns_its_result() {
        let cpu = *allowed_cpus().last().expect("some CPU");
        let shard = spawn(ShardId(3), Some(cpu), move || async move {
            let set = rustix::thread::sched_getaffinity(None).expect("affinity");
            assert_eq!(set.count(), 1);
            tokio::time::sleep(Duration::from_millis(1)).await;
            (set.is_set(cpu), std::thread::current().name().map(str::to_owned))
        });
        let result = shard.expect("started").join().expect("joined");
        assert_eq!(result, (true, Some("shard-3".to_owned())));
    }

    #[test]
    fn a_cpu_that_does_not_exist_is_named() {
        let error = spawn(ShardId(0), Some(1023), || async {}).err().expect("refused").to_string();
        assert!(error.contains("shard 0") && error.contains("CPU 1023"), "{error}");
    }

    #[test]
    fn shards_beyond_the_cores_share_them_evenly() {
        let allowed = [2, 5, 9];
        let cpus: Vec<_> = (0..5).map(|shard| cpu_of(ShardId(shard), &allowed, 2)).collect();
        assert_eq!(cpus, [Some(2), Some(5), Some(2), Some(5), Some(2)]);
        assert_eq!(cpu_of(ShardId(4), &allowed, 64), Some(5));
        assert_eq!(cpu_of(ShardId(4), &[], 2), None);
    }

    /// A task nobody awaits panics: the process must end by SIGABRT. Run in a child, for the child's sake.
    #[test]
    fn a_panic_in_any_task_of_a_shard_ends_the_process() {
        use std::os::unix::process::ExitStatusExt;
        const CHILD: &str = "CORELOG_TEST_SHARD_PANIC";
        if std::env::var_os(CHILD).is_some() {
            let shard = spawn(ShardId(0), None, || async {
                tokio_uring::spawn(async { panic!("lost invariant") });
                tokio::time::sleep(Duration::from_secs(10)).await;
            });
            let _ = shard.expect("started").join();
            return;
        }
        let name = "shard::runtime::tests::a_panic_in_any_task_of_a_shard_ends_the_process";
        let output = std::process::Command::new(std::env::current_exe().expect("own path"))
            .args(["--exact", name, "--nocapture"])
            .env(CHILD, "1")
            .output()
            .expect("child");
        assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("lost invariant"), "{output:?}");
    }
}
