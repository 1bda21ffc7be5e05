//! What the shard's network costs by itself, per request, without a broker behind it.
//!
//! `cargo run --release --example shard_floor -- [seconds] [part of a case's name]`. The shard is pinned to one CPU, the clients to another;
//! the figure is the CPU time of the shard's thread divided by the requests it answered.

use bytes::Bytes;
use corelog::api::Outcome;
use corelog::base::ids::ShardId;
use corelog::shard::listener::{SocketSettings, bind};
use corelog::shard::{ConnectionMeta, FileSender, NetSettings, Network, Service, runtime};
use corelog::wire::reply::{FileSlice, Piece, ReplyFrame};
use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const FILE_BYTES: u64 = 64 << 20;

#[derive(Clone, Copy)]
enum Work {
    /// A frame of so many bytes comes, a short answer goes, at once.
    Answer(usize),
    /// As `Answer`, but the answer waits for a task that completes all that wait, as one write of a log does.
    Wait(usize),
    /// A short frame comes, so many bytes of a file go.
    File(usize, FileSender),
}

struct Bench {
    work: Work,
    file: Rc<std::fs::File>,
    append: tokio::sync::Notify,
    appends: RefCell<Vec<tokio::sync::oneshot::Sender<()>>>,
    next: Cell<u64>,
}

impl Service for Bench {
    fn dispatch(&self, _: &ConnectionMeta, frame: Bytes) -> Outcome {
        match self.work {
            Work::Answer(_) => Outcome::Reply(short_reply(&frame)),
            Work::Wait(_) => {
                let (done, completed) = tokio::sync::oneshot::channel();
                self.appends.borrow_mut().push(done);
                self.append.notify_one();
                Outcome::Wait(Box::pin(async move {
                    let _ = completed.await;
                    Ok(short_reply(&frame))
                }))
            }
            Work::File(length, _) => {
                let mut reply = ReplyFrame::default();
                let mut head = (60 + length as u32).to_be_bytes().to_vec();
                head.resize(64, 0);
                reply.pieces.push(Piece::Bytes(head.into()));
                let file: Rc<dyn AsFd> = self.file.clone();
                let position = self.next.get() % (FILE_BYTES - length as u64);
                self.next.set(position + length as u64);
                reply.pieces.push(Piece::File(FileSlice { file, position, length }));
                Outcome::Reply(reply)
            }
        }
    }
}

fn short_reply(frame: &Bytes) -> ReplyFrame {
    let mut reply = [0u8; 60];
    reply[..4].copy_from_slice(&56u32.to_be_bytes());
    reply[4..8].copy_from_slice(&frame[4..8]);
    ReplyFrame::from(Bytes::copy_from_slice(&reply))
}

fn main() -> anyhow::Result<()> {
    let seconds: f64 = std::env::args().nth(1).map_or(Ok(2.0), |text| text.parse())?;
    let only = std::env::args().nth(2).unwrap_or_default();
    let path = std::env::temp_dir().join(format!("corelog-shard-floor-{}", std::process::id()));
    std::fs::write(&path, vec![3; FILE_BYTES as usize])?;
    println!("{:<34} {:>10} {:>9} {:>12} {:>9}", "work", "requests/s", "MB/s", "CPU us/req", "CPU %");
    for (name, work, connections, depth) in cases().into_iter().filter(|case| case.0.contains(&only)) {
        let (rate, cpu_us, share, bytes) = measure(work, connections, depth, seconds, &path)?;
        println!("{name:<34} {rate:>10.0} {:>9.0} {cpu_us:>12.2} {:>8.0}%", rate * bytes as f64 / 1e6, share * 100.0);
    }
    std::fs::remove_file(&path)?;
    Ok(())
}

fn cases() -> Vec<(String, Work, usize, usize)> {
    let mut cases = Vec::new();
    for (connections, depth) in [(1, 1), (4, 8), (64, 1), (64, 5)] {
        cases.push((format!("1 KiB in, answer, {connections}x{depth}"), Work::Answer(1024), connections, depth));
        cases.push((format!("1 KiB in, wait, {connections}x{depth}"), Work::Wait(1024), connections, depth));
    }
    cases.push(("64 KiB in, wait, 4x4".into(), Work::Wait(64 << 10), 4, 4));
    cases.push(("1 MiB in, wait, 4x2".into(), Work::Wait(1 << 20), 4, 2));
    for kib in [4usize, 16, 32, 64, 128, 256, 1024] {
        for choice in [FileSender::Sendfile, FileSender::Splice] {
            cases.push((format!("{kib} KiB out, {choice:?}, 4x1"), Work::File(kib << 10, choice), 4, 1));
        }
    }
    cases
}

/// Requests per second, CPU microseconds per request, share of the core, payload bytes per request.
fn measure(
    work: Work,
    connections: usize,
    depth: usize,
    seconds: f64,
    path: &std::path::Path,
) -> anyhow::Result<(f64, f64, f64, usize)> {
    let (frame_bytes, reply_bytes, file_sender) = match work {
        Work::Answer(bytes) | Work::Wait(bytes) => (bytes, 60, FileSender::Auto),
        Work::File(bytes, choice) => (100, 64 + bytes, choice),
    };
    let listener = bind("127.0.0.1", 0, &SocketSettings { backlog: 1024, ..SocketSettings::default() })?;
    let address = listener.local_addr()?;
    let file = std::fs::File::open(path)?;
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let cpus = runtime::allowed_cpus();
    let shard = runtime::spawn(ShardId(0), cpus.first().copied(), move || async move {
        let settings = NetSettings { file_sender, ..NetSettings::default() };
        let bench = Rc::new(Bench {
            work,
            file: Rc::new(file),
            append: Default::default(),
            appends: Default::default(),
            next: Cell::new(0),
        });
        let network = Network::new(settings, bench.clone(), std::sync::Arc::default()).expect("network");
        let appender = tokio_uring::spawn(async move {
            loop {
                bench.append.notified().await;
                for done in bench.appends.take() {
                    let _ = done.send(());
                }
            }
        });
        network.serve(listener).expect("serving");
        tokio::time::sleep(Duration::from_millis(300)).await;
        let (begun, cpu, before) = (Instant::now(), thread_cpu(), network.metrics().requests.get());
        while !stopped.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let requests = network.metrics().requests.get() - before;
        let (elapsed, cpu) = (begun.elapsed().as_secs_f64(), (thread_cpu() - cpu).as_secs_f64());
        if std::env::var_os("COUNTERS").is_some() {
            eprintln!("{:?}", network.metrics());
        }
        network.drain(Duration::ZERO).await;
        appender.abort();
        (requests as f64 / elapsed, cpu * 1e6 / requests.max(1) as f64, cpu / elapsed)
    })?;
    let last = cpus.last().copied();
    let clients =
        std::thread::spawn(move || drive_clients(address, connections, depth, frame_bytes, reply_bytes, last));
    std::thread::sleep(Duration::from_secs_f64(0.3 + seconds));
    stop.store(true, Ordering::Relaxed);
    let (rate, cpu_us, share) = shard.join()?;
    let _ = clients.join();
    Ok((rate, cpu_us, share, frame_bytes.max(reply_bytes)))
}

/// One thread, all connections: reads what one has sent back, and sends as many requests again.
fn drive_clients(
    address: SocketAddr,
    connections: usize,
    depth: usize,
    frame: usize,
    reply: usize,
    cpu: Option<usize>,
) {
    if let Some(cpu) = cpu {
        core_affinity::set_for_current(core_affinity::CoreId { id: cpu });
    }
    let mut request = ((frame - 4) as u32).to_be_bytes().to_vec();
    request.resize(frame, 0);
    let requests = request.repeat(depth);
    let mut streams: Vec<TcpStream> =
        (0..connections).map(|_| TcpStream::connect(address).expect("connected")).collect();
    for stream in &streams {
        stream.set_nodelay(true).expect("option");
    }
    let mut buffer = vec![0; (reply * depth).max(1 << 20)];
    for stream in &mut streams {
        if stream.write_all(&requests).is_err() {
            return;
        }
    }
    loop {
        for stream in &mut streams {
            if stream.read_exact(&mut buffer[..reply * depth]).is_err() || stream.write_all(&requests).is_err() {
                return;
            }
        }
    }
}

fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
