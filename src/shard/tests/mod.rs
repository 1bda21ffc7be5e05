//! The network over real sockets on loopback: a service whose answers the client chooses, and small client helpers.
//!
//! A request is `key: i16 | operation: u8 | argument: u64 | rest`; key 0 is Produce's, which is never copied.

mod bounds;
mod ends;
mod order;
mod senders;

use super::{ConnectionMeta, NetSettings, Network, Service, listener};
use crate::api::Outcome;
use crate::wire::reply::{FileSlice, Piece, ReplyFrame};
use bytes::Bytes;
use smallvec::smallvec;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// Answers with the request itself.
const ECHO: u8 = b'e';
/// Answers with the request after `argument` milliseconds, counted from its arrival.
const SLEEP: u8 = b's';
/// Answers with the request when the test opens the gate.
const GATE: u8 = b'g';
/// Answers with `argument` bytes.
const BYTES: u8 = b'b';
/// Answers with the request after keeping the shard busy for `argument` microseconds.
const SPIN: u8 = b'w';
/// Answers nothing, at once.
const NOTHING: u8 = b'n';
/// Answers nothing, after a while: an empty reply.
const EMPTY: u8 = b'q';
/// Closes the connection.
const CLOSE: u8 = b'c';
/// Answers with slices of the test's file: `rest` is a list of (position u64, length u64); each is preceded by 3 bytes.
const FILE: u8 = b'f';

struct TestService {
    requests: Cell<usize>,
    frame_bytes: Cell<usize>,
    gate: Rc<Notify>,
    open: Rc<Cell<bool>>,
    /// Waiting futures that were dropped before they ended.
    dropped: Rc<Cell<usize>>,
    file: RefCell<Option<Rc<std::fs::File>>>,
}

impl Default for TestService {
    fn default() -> Self {
        TestService {
            requests: Cell::new(0),
            frame_bytes: Cell::new(0),
            gate: Rc::new(Notify::new()),
            open: Rc::new(Cell::new(false)),
            dropped: Rc::default(),
            file: RefCell::new(None),
        }
    }
}

impl TestService {
    fn open_gate(&self) {
        self.open.set(true);
        self.gate.notify_waiters();
    }
}

/// Counts itself when dropped early.
struct Waiting {
    dropped: Rc<Cell<usize>>,
    done: Cell<bool>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.dropped.set(self.dropped.get() + usize::from(!self.done.get()));
    }
}

impl Service for TestService {
    fn dispatch(&self, _: &ConnectionMeta, frame: Bytes) -> Outcome {
        self.requests.set(self.requests.get() + 1);
        self.frame_bytes.set(self.frame_bytes.get() + frame.len());
        let argument = u64::from_be_bytes(frame[3..11].try_into().expect("eight bytes"));
        match frame[2] {
            ECHO => Outcome::Reply(framed(frame)),
            SPIN => {
                let end = std::time::Instant::now() + Duration::from_micros(argument);
                while std::time::Instant::now() < end {}
                Outcome::Reply(framed(frame))
            }
            SLEEP => {
                let end = tokio::time::Instant::now() + Duration::from_millis(argument);
                Outcome::Wait(Box::pin(async move {
                    tokio::time::sleep_until(end).await;
                    Ok(framed(frame))
                }))
            }
            GATE => {
                let (gate, open) = (Rc::clone(&self.gate), Rc::clone(&self.open));
                let waiting = Waiting { dropped: Rc::clone(&self.dropped), done: Cell::new(false) };
                Outcome::Wait(Box::pin(async move {
                    while !open.get() {
                        gate.notified().await;
                    }
                    waiting.done.set(true);
                    Ok(framed(frame))
                }))
            }
            BYTES => Outcome::Reply(framed(Bytes::from(vec![7; argument as usize]))),
            NOTHING => Outcome::Nothing,
            EMPTY => Outcome::Wait(Box::pin(async {
                tokio::time::sleep(Duration::from_millis(1)).await;
                Ok(ReplyFrame::default())
            })),
            CLOSE => Outcome::Close("asked to".to_owned()),
            FILE => Outcome::Reply(self.file_reply(&frame[11..])),
            other => panic!("operation {other}"),
        }
    }
}

impl TestService {
    fn file_reply(&self, slices: &[u8]) -> ReplyFrame {
        let file = self.file.borrow().clone().expect("the test gave a file");
        let mut reply = ReplyFrame::default();
        let mut total = 0;
        for slice in slices.as_chunks::<16>().0 {
            let position = u64::from_be_bytes(slice[..8].try_into().expect("eight"));
            let length = u64::from_be_bytes(slice[8..].try_into().expect("eight")) as usize;
            reply.pieces.push(Piece::Bytes(Bytes::from_static(b"hdr")));
            let file: Rc<dyn std::os::fd::AsFd> = file.clone();
            reply.pieces.push(Piece::File(FileSlice { file, position, length }));
            total += 3 + length;
        }
        reply.pieces.insert(0, Piece::Bytes(Bytes::copy_from_slice(&(total as u32).to_be_bytes())));
        reply
    }
}

fn framed(payload: Bytes) -> ReplyFrame {
    let length = Bytes::copy_from_slice(&(payload.len() as u32).to_be_bytes());
    ReplyFrame { pieces: smallvec![Piece::Bytes(length), Piece::Bytes(payload)] }
}

/// A frame as the client sends it, its length included.
fn request(operation: u8, argument: u64, rest: &[u8]) -> Vec<u8> {
    keyed_request(0, operation, argument, rest)
}

fn keyed_request(key: i16, operation: u8, argument: u64, rest: &[u8]) -> Vec<u8> {
    let mut frame = ((11 + rest.len()) as u32).to_be_bytes().to_vec();
    frame.extend(key.to_be_bytes());
    frame.push(operation);
    frame.extend(argument.to_be_bytes());
    frame.extend(rest);
    frame
}

async fn read_reply(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let length = stream.read_u32().await?;
    let mut payload = vec![0; length as usize];
    stream.read_exact(&mut payload).await?;
    Ok(payload)
}

struct Fixture {
    network: Rc<Network>,
    service: Rc<TestService>,
    address: SocketAddr,
}

impl Fixture {
    fn start(settings: NetSettings) -> Fixture {
        Fixture::start_with(settings, listener::SocketSettings::default())
    }

    fn start_with(settings: NetSettings, sockets: listener::SocketSettings) -> Fixture {
        let service = Rc::new(TestService::default());
        let network = Network::new(settings, service.clone(), Arc::default()).expect("network");
        let socket = listener::bind("127.0.0.1", 0, &sockets).expect("bound");
        let address = socket.local_addr().expect("address");
        network.serve(socket).expect("serving");
        Fixture { network, service, address }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("connected")
    }

    /// Waits until `condition` holds, which must be soon.
    async fn until(&self, what: &str, condition: impl Fn(&Fixture) -> bool) {
        for _ in 0..5000 {
            if condition(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        panic!("never came: {what}; {:?}", self.network.metrics());
    }
}

/// Runs a test on a shard's kind of runtime; fails if it hangs.
fn on_shard<F: Future<Output = ()>>(test: F) {
    tokio_uring::builder().entries(16).start(async {
        tokio::time::timeout(Duration::from_secs(60), test).await.expect("the test ends in time");
    });
}

/// As `on_shard`, in a process of its own: for tests that measure the memory of the process, which other tests share.
fn alone<F: Future<Output = ()>>(name: &str, test: F) {
    const CHILD: &str = "CORELOG_TEST_ALONE";
    let name = format!("shard::tests::{name}");
    if std::env::var_os(CHILD).is_some_and(|child| *child == *name) {
        return on_shard(test);
    }
    let mut command = std::process::Command::new(std::env::current_exe().expect("own path"));
    let output = command.args(["--exact", &name, "--nocapture"]).env(CHILD, &name).output().expect("child");
    let text = String::from_utf8_lossy(&output.stdout);
    print!("{text}");
    assert!(output.status.success() && text.contains("1 passed"), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Bytes that differ everywhere, so that a misplaced slice shows.
fn pattern(length: usize) -> Vec<u8> {
    (0..length as u64).map(|at| (at ^ (at >> 8).wrapping_mul(31) ^ (at >> 16).wrapping_mul(17)) as u8).collect()
}

async fn send(stream: &mut TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).await.expect("sent");
}

/// Resident memory of this process in bytes.
fn resident_bytes() -> usize {
    let mut text = String::new();
    std::fs::File::open("/proc/self/statm").and_then(|mut file| file.read_to_string(&mut text)).expect("statm");
    let pages: usize = text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("pages");
    pages * rustix::param::page_size()
}
