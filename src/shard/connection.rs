//! One connection: a task and a state machine, reader and writer in one.
//!
//! Each turn of the task does the same three things: take frames off the socket and run stage one of each, poll the
//! oldest request that waits, send what is ready. Answers leave strictly in the order of their requests, as clients
//! rely on; only the head of the queue is polled, so waiting overlaps and costs nothing.
//!
//! Backpressure is not reading: with too many requests or bytes in flight the socket is left alone until answers have
//! left, and the peer's TCP stops it.

use super::network::{Doom, Network, Registration};
use super::receive::{SMALL_BUFFER_BYTES, poll_fill};
use super::sender::{Progress, SendTools, Sender};
use crate::api::{Answer, Outcome};
use crate::base::limits::{CONNECTION_HELD_BYTES_MAX, CONNECTION_IN_FLIGHT_MAX};
use crate::wire::frame::{FRAME_SIZE_BYTES, FrameError, missing_bytes, next_frame};
use crate::wire::reply::ReplyFrame;
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// Bytes that one connection moves, each way, before others have their turn.
const TURN_BYTES_MAX: usize = 1 << 20;
/// Reads of one connection before others have their turn.
const TURN_READS_MAX: usize = 32;
/// How long requests of one connection that came together are dispatched before others have their turn. By the clock: a
/// hundred small requests may be nothing, or a hundred descriptions of every topic.
const TURN_DISPATCH_MAX: Duration = Duration::from_millis(1);
/// From this size on, a connection's next frame is expected to be large too, and is read into a buffer of its own.
const BULK_FRAME_BYTES_MIN: usize = 32 << 10;
/// Small requests other than Produce may wait long (a fetch, a join): they get memory of their own, so that none of
/// them keeps a whole chunk alive.
const COPIED_FRAME_BYTES_MAX: usize = 8 << 10;
const API_KEY_PRODUCE: [u8; 2] = [0, 0];
/// Slots that an idle connection keeps allocated.
const IDLE_SLOTS_MAX: usize = 16;

/// What a connection hands its frames to.
pub trait Service {
    /// Stage one of a request: decodes `frame` (without its length) and decides everything whose order matters.
    ///
    /// A `Wait` that ends with an empty reply answers nothing, but still counts as in flight until then: the way to
    /// keep acks=0 bounded.
    fn dispatch(&self, connection: &ConnectionMeta, frame: Bytes) -> Outcome;
}

/// What is known of a connection for as long as it lives.
#[derive(Clone, Debug)]
pub struct ConnectionMeta {
    /// Unique within the shard's life.
    pub id: u64,
    /// IPv4 addresses that arrived on a dual-stack socket are IPv4 here.
    pub local_addr: SocketAddr,
    pub peer_addr: SocketAddr,
}

/// How a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    /// The peer closed or reset it: nothing worth a line.
    #[error("the peer closed the connection")]
    Peer,
    #[error("{0}")]
    Doomed(Doom),
    #[error(transparent)]
    Frame(FrameError),
    #[error("{0}")]
    Refused(String),
    #[error("sending failed: {0}")]
    Send(io::Error),
    #[error("receiving failed: {0}")]
    Receive(io::Error),
    #[error("drained")]
    Drained,
}

/// A request whose answer has not been handed to the sender, and the bytes that it or its answer holds.
struct Slot {
    state: SlotState,
    held: usize,
}

enum SlotState {
    Ready(ReplyFrame),
    Wait(Pin<Box<dyn Future<Output = Answer>>>),
}

pub(super) struct Connection {
    network: Rc<Network>,
    registration: Registration,
    meta: ConnectionMeta,
    stream: TcpStream,
    /// Received, not yet dispatched: a torn frame in memory of its own, or whole frames in the shared chunk that wait
    /// for room in the queue.
    buffer: BytesMut,
    /// Capacity of `buffer` that was allocated for this connection alone; 0 while it is a slice of the chunk.
    own_bytes: usize,
    /// How much of `own_bytes` the shard's budget counts.
    reserved_bytes: usize,
    /// The largest frame that this connection has really sent: so much is allocated on its word.
    trusted_bytes: usize,
    /// What the next frame is expected to need, its length included; 0 where frames are small.
    bulk_bytes: usize,
    slots: VecDeque<Slot>,
    /// Bytes that `slots` hold.
    held_bytes: usize,
    sender: Sender,
    /// How much of what the sender could not send at once the shard's budget counts.
    unsent_bytes: usize,
    /// Requests dispatched in this turn.
    dispatched: usize,
    /// When this turn's dispatching must end; set when there is a second request to dispatch.
    turn_ends: Option<Instant>,
    /// No further request is taken; the connection ends when earlier answers have left.
    ending: Option<End>,
}

impl Connection {
    pub(super) fn new(
        network: Rc<Network>,
        registration: Registration,
        meta: ConnectionMeta,
        stream: TcpStream,
    ) -> Self {
        Connection {
            network,
            registration,
            meta,
            stream,
            buffer: BytesMut::new(),
            own_bytes: 0,
            reserved_bytes: 0,
            trusted_bytes: SMALL_BUFFER_BYTES,
            bulk_bytes: 0,
            slots: VecDeque::new(),
            held_bytes: 0,
            sender: Sender::default(),
            unsent_bytes: 0,
            dispatched: 0,
            turn_ends: None,
            ending: None,
        }
    }

    /// Serves the connection until it ends, and says why at the right level.
    pub(super) async fn run(mut self) {
        let end = std::future::poll_fn(|cx| self.poll_turn(cx)).await;
        let peer = self.meta.peer_addr;
        match &end {
            End::Peer | End::Drained => tracing::debug!(%peer, %end, "connection closed"),
            End::Doomed(_) => tracing::info!(%peer, %end, "connection closed"),
            End::Frame(_) | End::Refused(_) => tracing::warn!(%peer, %end, "connection closed"),
            End::Send(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                tracing::error!(%peer, %end, "connection closed");
            }
            End::Send(_) | End::Receive(_) => tracing::debug!(%peer, %end, "connection closed"),
        }
    }

    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        if let Some(doom) = self.registration.attend(cx.waker()) {
            return Poll::Ready(End::Doomed(doom));
        }
        match self.turn(cx) {
            Ok(poll) => poll,
            Err(end) => Poll::Ready(end),
        }
    }

    fn turn(&mut self, cx: &mut Context<'_>) -> Result<Poll<End>, End> {
        let (mut received, mut reads, mut sent) = (0, 0, 0);
        (self.dispatched, self.turn_ends) = (0, None);
        let mut head_waits = false;
        loop {
            let got = self.receive(cx)?;
            let collected = !head_waits && self.collect_ready(cx, &mut head_waits);
            let sent_before = sent;
            let progress = self.send(cx, &mut sent)?;
            received += got.unwrap_or(0);
            reads += usize::from(got.is_some());
            let moved = got.is_some() || collected || sent > sent_before;
            if got.is_some() || sent > sent_before {
                self.registration.touch();
            }
            if progress == Progress::Done
                && self.slots.is_empty()
                && let Some(end) = self.end_when_answered()
            {
                return Ok(Poll::Ready(end));
            }
            self.settle_budget(&progress);
            let is_over = received >= TURN_BYTES_MAX || reads >= TURN_READS_MAX || self.is_overtime();
            if progress == Progress::Turn || is_over {
                self.network.metrics.breathers.add(1);
                self.network.breather.wake_later(cx.waker());
                return Ok(Poll::Pending);
            }
            // Once more while something moved: room in the queue lets frames in, and readiness must be asked for until
            // it is gone, or nobody would wake this task.
            if !moved {
                self.slim();
                return Ok(Poll::Pending);
            }
        }
    }

    /// What has not left by the end of a turn counts as the shard's memory, like requests.
    fn settle_budget(&mut self, progress: &Progress) {
        let budget = &self.network.receive.budget;
        let unsent = self.sender.memory();
        if unsent > self.unsent_bytes {
            budget.hold(unsent - self.unsent_bytes);
        } else if unsent < self.unsent_bytes {
            budget.release(self.unsent_bytes - unsent);
        }
        self.unsent_bytes = unsent;
        self.registration.set_blocked(*progress == Progress::Blocked);
        // A frame beyond the budget keeps its privilege until it is answered: the next one would come on top.
        if self.reserved_bytes == 0 && self.slots.is_empty() {
            budget.end_privilege(self.meta.id);
        }
    }

    fn end_when_answered(&mut self) -> Option<End> {
        if self.registration.is_draining() { Some(End::Drained) } else { self.ending.take() }
    }

    /// Dispatches what is there, reads at most once, and dispatches that. None: nothing was read.
    fn receive(&mut self, cx: &mut Context<'_>) -> Result<Option<usize>, End> {
        self.dispatch_frames();
        if self.takes_no_more() || self.is_overtime() {
            return Ok(None);
        }
        if self.is_full() {
            self.network.metrics.reading_paused.add(1);
            return Ok(None);
        }
        if self.is_out_of_memory() {
            self.network.wait_for_memory(self.meta.id, cx.waker());
            self.network.metrics.reading_paused.add(1);
            return Ok(None);
        }
        let bytes = match self.poll_read(cx) {
            Poll::Ready(Ok(bytes)) => bytes,
            Poll::Ready(Err(error)) if is_peer(&error) => return Err(End::Peer),
            Poll::Ready(Err(error)) => return Err(End::Receive(error)),
            Poll::Pending => return Ok(None),
        };
        if bytes == 0 {
            // As in Kafka, what has been asked is done, and what is not yet answered is dropped.
            return Err(End::Peer);
        }
        self.network.metrics.reads.add(1);
        self.network.metrics.bytes_in.add(bytes as u64);
        self.dispatch_frames();
        Ok(Some(bytes))
    }

    fn takes_no_more(&self) -> bool {
        self.ending.is_some() || self.registration.is_draining()
    }

    /// Whether this connection's own bounds are reached.
    fn is_full(&self) -> bool {
        self.slots.len() + self.sender.frames() >= CONNECTION_IN_FLIGHT_MAX
            || self.held_bytes + self.sender.memory() >= CONNECTION_HELD_BYTES_MAX
    }

    /// Whether the shard's bound is reached. With nothing in flight a connection is served even then, one request at a
    /// time: a follower's fetch may be what the others wait for.
    fn is_out_of_memory(&self) -> bool {
        self.network.receive.budget.is_exhausted() && !(self.slots.is_empty() && self.sender.is_empty())
    }

    /// Whether the turn's time is up. The clock is looked at only from the second request of a turn on.
    fn is_overtime(&mut self) -> bool {
        if self.buffer.is_empty() || self.dispatched == 0 {
            return false;
        }
        let now = Instant::now();
        now >= *self.turn_ends.get_or_insert(now + TURN_DISPATCH_MAX)
    }

    /// Whether the next frame must wait for room. What has a share of the budget already need not wait for another.
    fn must_wait(&self) -> bool {
        self.is_full() || (self.reserved_bytes == 0 && self.is_out_of_memory())
    }

    /// Stage one of the whole frames that are there, as far as the bounds and this turn's time allow.
    fn dispatch_frames(&mut self) {
        while !self.buffer.is_empty() && !self.takes_no_more() && !self.must_wait() && !self.is_overtime() {
            match next_frame(&mut self.buffer, self.network.settings.request_bytes_max) {
                Ok(Some(frame)) => {
                    self.note_size(frame.len() + FRAME_SIZE_BYTES);
                    // Of the chunk, or of a buffer that held more than this frame.
                    let is_small_part = self.own_bytes == 0 || frame.len() < self.own_bytes / 2;
                    if self.buffer.is_empty() && self.own_bytes > 0 {
                        // The frame itself keeps the memory from now on, and is what counts.
                        self.drop_buffer();
                    }
                    self.dispatch(frame, is_small_part);
                }
                Ok(None) => break,
                // Where the next frame would start is unknown; earlier requests are still answered.
                Err(error) => self.refuse(End::Frame(error)),
            }
        }
    }

    fn note_size(&mut self, total: usize) {
        self.trusted_bytes = self.trusted_bytes.max(total);
        self.bulk_bytes =
            if total >= BULK_FRAME_BYTES_MIN { total.max(self.bulk_bytes - self.bulk_bytes / 8) } else { 0 };
    }

    fn dispatch(&mut self, frame: Bytes, is_small_part: bool) {
        self.network.metrics.requests.add(1);
        self.dispatched += 1;
        let held = frame.len();
        let copy = is_small_part && held <= COPIED_FRAME_BYTES_MAX && !frame.starts_with(&API_KEY_PRODUCE);
        let frame = if copy { Bytes::copy_from_slice(&frame) } else { frame };
        match self.network.service.dispatch(&self.meta, frame) {
            Outcome::Reply(reply) if self.slots.is_empty() => self.sender.push(reply),
            Outcome::Reply(reply) => {
                let held = reply.memory();
                self.enqueue(Slot { state: SlotState::Ready(reply), held });
            }
            Outcome::Wait(reply) => self.enqueue(Slot { state: SlotState::Wait(reply), held }),
            Outcome::Nothing => {}
            Outcome::Close(reason) => self.refuse(End::Refused(reason)),
        }
    }

    fn enqueue(&mut self, slot: Slot) {
        self.held_bytes += slot.held;
        self.network.receive.budget.hold(slot.held);
        self.slots.push_back(slot);
    }

    fn refuse(&mut self, end: End) {
        self.network.metrics.requests_refused.add(1);
        self.ending = Some(end);
    }

    /// Hands the sender every answer whose turn has come. Whether there was one; `head_waits` if the next is not ready.
    fn collect_ready(&mut self, cx: &mut Context<'_>, head_waits: &mut bool) -> bool {
        let mut collected = false;
        // What is sent makes room for further answers: they are not all made at once.
        while self.sender.memory() < CONNECTION_HELD_BYTES_MAX
            && let Some(head) = self.slots.front_mut()
        {
            if let SlotState::Wait(reply) = &mut head.state {
                match reply.as_mut().poll(cx) {
                    Poll::Ready(Ok(reply)) => head.state = SlotState::Ready(reply),
                    Poll::Ready(Err(error)) => {
                        self.slots.clear();
                        self.ending = Some(End::Refused(error.to_string()));
                        return collected;
                    }
                    Poll::Pending => {
                        *head_waits = true;
                        return collected;
                    }
                }
            }
            let Some(Slot { state: SlotState::Ready(reply), held }) = self.slots.pop_front() else { break };
            self.held_bytes -= held;
            self.network.receive.budget.release(held);
            self.sender.push(reply);
            collected = true;
        }
        collected
    }

    fn send(&mut self, cx: &mut Context<'_>, sent: &mut usize) -> Result<Progress, End> {
        if self.sender.is_empty() {
            return Ok(Progress::Done);
        }
        let network = &self.network;
        let tools =
            SendTools { pipes: &network.pipes, metrics: &network.metrics, choice: network.settings.file_sender };
        let bytes_max = TURN_BYTES_MAX.saturating_sub(*sent);
        self.sender
            .poll_send(cx, &self.stream, &tools, bytes_max, sent)
            .map_err(|error| if is_peer(&error) { End::Peer } else { End::Send(error) })
    }

    /// One read: into the shard's chunk where frames are small, into a buffer of its own for the rest of a torn frame
    /// or the next large one.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let whole_room = self.buffer.capacity() - self.buffer.len();
        if self.buffer.is_empty() && (self.bulk_bytes == 0 || whole_room < self.bulk_bytes / 2) {
            self.drop_buffer();
        }
        let room = self.buffer.capacity() - self.buffer.len();
        if room == 0 {
            if self.buffer.is_empty() && self.bulk_bytes == 0 {
                return self.poll_read_chunk(cx);
            }
            // Memory is taken only when there is something to put into it.
            std::task::ready!(self.stream.poll_read_ready(cx))?;
            let capacity = self.wanted_capacity();
            if !self.grow_buffer(capacity) {
                if self.buffer.is_empty() {
                    return self.poll_read_chunk(cx);
                }
                self.network.wait_for_memory(self.meta.id, cx.waker());
                return Poll::Pending;
            }
        }
        poll_fill(cx, &mut self.stream, &mut self.buffer)
    }

    fn poll_read_chunk(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let data = std::task::ready!(self.network.receive.poll_read(cx, &mut self.stream))?;
        let bytes = data.len();
        self.buffer = data;
        Poll::Ready(Ok(bytes))
    }

    /// Capacity for the torn frame in `buffer`, or for the next large one: what it claims to need where the connection
    /// has sent as much before, otherwise growing with what has really arrived.
    fn wanted_capacity(&self) -> usize {
        let here = self.buffer.len();
        if here == 0 {
            return self.bulk_bytes;
        }
        let total = here + missing_bytes(&self.buffer).max(1);
        if total <= self.trusted_bytes { total } else { total.min((here * 4).max(SMALL_BUFFER_BYTES)) }
    }

    /// Moves what is in `buffer` to a buffer of `capacity`. False: the shard's budget has no room for it now.
    fn grow_buffer(&mut self, capacity: usize) -> bool {
        let receive = &self.network.receive;
        let reserved = if capacity > SMALL_BUFFER_BYTES { capacity } else { 0 };
        if reserved > self.reserved_bytes && !receive.budget.reserve(self.meta.id, reserved - self.reserved_bytes) {
            return false;
        }
        if reserved < self.reserved_bytes {
            receive.budget.release(self.reserved_bytes - reserved);
        }
        self.move_buffer(capacity, reserved);
        self.registration.set_arriving(reserved > 0);
        true
    }

    /// Takes what waits for room in the queue out of the shard's chunk. It has arrived, so it counts whatever the budget
    /// says; and nobody can say that the peer is slow with it.
    fn leave_chunk(&mut self) {
        let bytes = self.buffer.len();
        let reserved = if bytes > SMALL_BUFFER_BYTES { bytes } else { 0 };
        self.network.receive.budget.hold(reserved);
        self.move_buffer(bytes, reserved);
    }

    /// Moves what is in `buffer` to one of `capacity`, of which the budget counts `reserved`.
    fn move_buffer(&mut self, capacity: usize, reserved: usize) {
        let receive = &self.network.receive;
        let mut moved = receive.take(capacity);
        moved.extend_from_slice(&self.buffer);
        let old = std::mem::replace(&mut self.buffer, moved);
        if self.own_bytes > 0 {
            receive.retire(old, self.own_bytes);
        }
        (self.own_bytes, self.reserved_bytes) = (capacity, reserved);
    }

    /// Gives the buffer back, with the budget's share.
    fn drop_buffer(&mut self) {
        let old = std::mem::take(&mut self.buffer);
        if self.own_bytes > 0 {
            self.network.receive.retire(old, self.own_bytes);
        }
        if self.reserved_bytes > 0 {
            self.network.receive.budget.release(self.reserved_bytes);
            self.registration.set_arriving(false);
        }
        (self.own_bytes, self.reserved_bytes) = (0, 0);
    }

    /// Before waiting: what is not needed while idle goes back.
    fn slim(&mut self) {
        if self.buffer.is_empty() {
            if self.own_bytes > 0 {
                self.drop_buffer();
            }
        } else if self.own_bytes == 0 && self.must_wait() {
            self.leave_chunk();
        } else if self.own_bytes == 0 {
            // A torn frame must not keep the chunk of all alive. Where the budget refuses, the bytes are counted when
            // room is found: they are few, or the connection is waiting for it.
            let capacity = self.wanted_capacity();
            self.grow_buffer(capacity);
        }
        if self.slots.is_empty() {
            self.slots.shrink_to(IDLE_SLOTS_MAX);
            self.sender.slim();
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.sender.abandon(&self.network.pipes);
        self.drop_buffer();
        let budget = &self.network.receive.budget;
        budget.release(self.held_bytes + self.unsent_bytes);
        budget.forget(self.meta.id);
    }
}

fn is_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, TimedOut};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | TimedOut)
}
