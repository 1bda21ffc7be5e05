//! What the running broker asks of the kernel, as strace sees it.
//!
//! The broker runs under `strace -D` from its start; lines are looked at by time, between two marks of the test.

use crate::broker::{Broker, Start};
use crate::cross::quiet;
use crate::load::Load;
use crate::wire::{Client, batch, create_topic, fetch, produce};
use rustix::mm::{MapFlags, ProtFlags, mlock, mmap};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::ptr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A broker under strace.
struct Traced {
    broker: Broker,
    file: PathBuf,
    /// Thread ids of the shards.
    shards: Vec<u32>,
}

/// One system call that has returned.
#[derive(Debug)]
struct Call {
    thread: u32,
    at: f64,
    name: String,
    /// What follows the name: arguments, and the result behind the last `=`.
    rest: String,
}

impl Call {
    fn result(&self) -> i64 {
        let text = self.rest.rsplit_once(" = ").map_or("", |(_, result)| result);
        text.split(|c: char| !(c.is_ascii_digit() || c == '-')).next().and_then(|n| n.parse().ok()).unwrap_or(-1)
    }

    /// The descriptors that it names, with what they are: `7<anon_inode:[eventfd]>`.
    fn descriptors(&self) -> Vec<(u32, &str)> {
        let mut found = Vec::new();
        for (at, _) in self.rest.match_indices('<') {
            let digits = self.rest[..at].bytes().rev().take_while(u8::is_ascii_digit).count();
            let what = self.rest[at + 1..].split('>').next().unwrap_or("");
            if let Ok(number) = self.rest[at - digits..at].parse() {
                found.push((number, what));
            }
        }
        found
    }
}

impl Traced {
    fn start(dir: &std::path::Path, calls: &str) -> Traced {
        let found = std::process::Command::new("strace").arg("-V").output();
        assert!(
            found.is_ok_and(|output| output.status.success()),
            "this test needs strace: apt-get install strace (or dnf install strace); tests/run installs it"
        );
        let file = dir.join("strace.log");
        let calls = format!("trace={calls}");
        let to = file.display().to_string();
        let strace = [
            "strace",
            "-D",
            "-f",
            "-ttt",
            "-y",
            "-s",
            "16",
            "--seccomp-bpf",
            "-e",
            "signal=none",
            "-e",
            &calls,
            "-o",
            &to,
        ];
        let broker = quiet(Start::new(&dir.join("data"))).under(&strace).start();
        let mut shards = Vec::new();
        for task in fs::read_dir(format!("/proc/{}/task", broker.pid())).expect("the broker lives").flatten() {
            let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            if name.starts_with("shard-") {
                shards.push(task.file_name().to_string_lossy().parse().expect("a thread id"));
            }
        }
        assert_eq!(shards.len(), 2, "the threads of both shards; is the broker a direct child?");
        Traced { broker, file, shards }
    }

    /// Stops the broker and reads what was traced.
    fn stop(self) -> Vec<Call> {
        let pid = self.broker.pid();
        self.broker.stop(rustix::process::Signal::TERM);
        let begun = Instant::now();
        let end = format!("{pid} ");
        loop {
            let text = String::from_utf8_lossy(&fs::read(&self.file).expect("strace wrote a file")).into_owned();
            // strace writes this line last.
            if text.lines().any(|line| line.starts_with(&end) && line.contains("+++ exited with")) {
                return parse(&text);
            }
            assert!(begun.elapsed() < crate::broker::PATIENCE, "strace does not end");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Joins the two halves of calls that were interrupted by another thread's line.
fn parse(text: &str) -> Vec<Call> {
    let mut halves: BTreeMap<u32, (f64, String)> = BTreeMap::new();
    let mut calls = Vec::new();
    for line in text.lines() {
        // Thread ids are padded to a column.
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let Some((at, what)) = rest.trim_start().split_once(' ') else { continue };
        let (Ok(thread), Ok(at)) = (thread.parse(), at.parse()) else { continue };
        let whole = if let Some(first) = what.strip_suffix(" <unfinished ...>") {
            halves.insert(thread, (at, first.to_owned()));
            continue;
        } else if what.starts_with("<... ") {
            let Some((at, first)) = halves.remove(&thread) else { continue };
            (at, first + what.split_once("resumed>").map_or("", |(_, second)| second))
        } else {
            (at, what.to_owned())
        };
        let Some((name, rest)) = whole.1.split_once('(') else { continue };
        calls.push(Call { thread, at: whole.0, name: name.to_owned(), rest: rest.to_owned() });
    }
    calls
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64()
}

fn between(calls: &[Call], (from, to): (f64, f64)) -> impl Iterator<Item = &Call> {
    calls.iter().filter(move |call| call.at >= from && call.at <= to)
}

/// A file kept in the page cache until the process ends: a machine short of memory would take it out under the test.
fn keep_in_memory(file: &Path) {
    let file = File::open(file).expect("opened");
    let bytes = file.metadata().expect("its length").len() as usize;
    // SAFETY: a fresh mapping at an address of the kernel's choice, which nothing reads through.
    let locked = unsafe {
        mmap(ptr::null_mut(), bytes, ProtFlags::READ, MapFlags::SHARED, file, 0)
            .and_then(|address| mlock(address, bytes))
    };
    locked.expect("6 MB can be locked in memory");
}

#[test]
fn a_warm_fetch_is_spliced_and_never_read() {
    const MOVES: &str = "read,write,readv,writev,pread64,pwrite64,preadv,pwritev,preadv2,pwritev2,\
                         recvfrom,recvmsg,sendto,sendmsg,sendfile,splice,vmsplice,process_vm_readv";
    let dir = tempfile::tempdir().expect("temporary directory");
    let traced = Traced::start(dir.path(), MOVES);
    let leader = create_topic(&traced.broker, "warm", 1, &[("max.message.bytes", "2000000")])[0];
    let mut client = Client::connect(leader);
    let mut bytes_in_log = 0;
    // 6 MB: what may be locked in memory without rights is 8 MiB.
    for seed in 0..6 {
        let batch = batch(seed, 10, 100_000);
        bytes_in_log += batch.len() as i64;
        produce(&mut client, "warm", 0, 1, batch).expect("produced");
    }
    keep_in_memory(&dir.path().join("data/warm-0/00000000000000000000.log"));
    let mut windows = Vec::new();
    // Large answers go by splice, small ones by sendfile; both are asked for.
    for max_bytes in [4 << 20, 100_000] {
        fetch(&mut client, "warm", 0, 0, max_bytes);
        let window_begin = now();
        let mut fetched = 0;
        for _ in 0..4 {
            for offset in [0, 20, 40] {
                let (_, records) = fetch(&mut client, "warm", 0, offset, max_bytes);
                fetched += records.len() as i64;
            }
        }
        assert!(fetched > bytes_in_log, "{fetched}");
        windows.push(((window_begin, now()), fetched));
    }
    let cold = traced.broker.counter("cold_reads");
    assert_eq!(cold, [0, 0], "nothing was read through io_uring either");
    let shards: BTreeSet<u32> = traced.shards.iter().copied().collect();
    let calls = traced.stop();
    for (window, fetched) in windows {
        let of_shards: Vec<_> = between(&calls, window).filter(|call| shards.contains(&call.thread)).collect();
        let (mut to_sockets, mut through_process) = (0, 0);
        for call in &of_shards {
            let is_move = matches!(call.name.as_str(), "sendfile" | "splice");
            let into_socket = is_move
                && call.descriptors().iter().any(|(_, what)| what.starts_with("TCP") || what.starts_with("socket"));
            if into_socket {
                to_sockets += call.result().max(0);
            } else if !is_move && !call.rest.contains("<anon_inode:[eventfd]>") {
                through_process += call.result().max(0);
            }
        }
        assert_eq!(to_sockets, fetched, "every byte of the records went from file to socket within the kernel");
        let requests =
            of_shards.iter().filter(|call| matches!(call.name.as_str(), "sendmsg" | "sendto")).count() as i64;
        assert!(requests >= 12, "an answer's head for each fetch: {requests}");
        assert!(
            through_process < fetched / 50,
            "{through_process} bytes were read or written for {fetched} bytes of records: {of_shards:?}"
        );
    }
}

/// What the eventfds of a shard are, by descriptor: those in the epoll set that its thread waits on.
fn eventfd_owners(traced: &Traced) -> BTreeMap<u32, u32> {
    let pid = traced.broker.pid();
    let text = fs::read_to_string(&traced.file).unwrap_or_default();
    let mut owners = BTreeMap::new();
    for call in parse(&text).iter().filter(|call| call.name.starts_with("epoll_")) {
        let Some((epoll, _)) = call.descriptors().into_iter().next() else { continue };
        let Ok(info) = fs::read_to_string(format!("/proc/{pid}/fdinfo/{epoll}")) else { continue };
        for line in info.lines().filter_map(|line| line.strip_prefix("tfd:")) {
            let number: u32 = line.split_whitespace().next().and_then(|n| n.parse().ok()).expect("a descriptor");
            owners.insert(number, call.thread);
        }
    }
    owners
}

#[test]
fn steady_produce_and_fetch_wake_no_other_thread() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let traced =
        Traced::start(dir.path(), "futex,write,writev,tgkill,epoll_wait,epoll_pwait,epoll_pwait2,io_uring_enter");
    let mut load = Load::prepare(&traced.broker, "silent");
    let steady_begin = now();
    load.run(100);
    let steady = (steady_begin, now());
    // The counter-example: a message to both shards within the same trace.
    let injected_begin = now();
    create_topic(&traced.broker, "injected", 1, &[]);
    let injected = (injected_begin, now());
    std::thread::sleep(Duration::from_millis(100));
    let owners = eventfd_owners(&traced);
    let shards: BTreeSet<u32> = traced.shards.iter().copied().collect();
    assert!(shards.iter().all(|shard| owners.values().any(|owner| owner == shard)), "both shards wait on an epoll set");
    let calls = traced.stop();

    let of_shards = |call: &&Call| shards.contains(&call.thread);
    let waits: Vec<_> =
        between(&calls, steady).filter(of_shards).filter(|call| call.name.starts_with("epoll_")).collect();
    assert!(waits.len() > 100, "the shards were at work: {}", waits.len());
    let is_wake = |call: &&Call| matches!(call.name.as_str(), "futex" | "tgkill");
    assert!(calls.iter().filter(of_shards).any(|c| is_wake(&c)), "making files at first touch takes a helper thread");
    let futexes: Vec<_> = between(&calls, steady).filter(of_shards).filter(is_wake).collect();
    assert!(futexes.is_empty(), "a shard waited for, or woke, another thread: {futexes:?}");
    let foreign = foreign_writes(between(&calls, steady), &owners, &shards);
    assert!(foreign.is_empty(), "an event to a shard came from another thread: {foreign:?}");

    let foreign = foreign_writes(between(&calls, injected), &owners, &shards);
    let reached: BTreeSet<u32> = foreign.iter().map(|(_, shard)| *shard).collect();
    assert_eq!(reached, shards, "a message to both shards would have been seen");
}

/// Writes to a shard's eventfd by any thread but the shard's own, which wakes itself so after its own completions.
fn foreign_writes<'a>(
    calls: impl Iterator<Item = &'a Call>,
    owners: &BTreeMap<u32, u32>,
    shards: &BTreeSet<u32>,
) -> Vec<(&'a Call, u32)> {
    let mut found = Vec::new();
    for call in calls.filter(|call| call.name.starts_with("write")) {
        let Some((descriptor, what)) = call.descriptors().into_iter().next() else { continue };
        let owner = owners.get(&descriptor).copied().filter(|owner| shards.contains(owner));
        if what.contains("eventfd")
            && let Some(owner) = owner
            && owner != call.thread
        {
            found.push((call, owner));
        }
    }
    found
}
