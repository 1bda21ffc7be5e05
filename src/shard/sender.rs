//! Sends reply frames: bytes gathered into one sendmsg, file slices by splice or sendfile, never through user space.

use super::pipes::{Pipe, PipePool};
use crate::base::metrics::ShardMetrics;
use crate::wire::reply::{FileSlice, Piece, ReplyFrame};
use rustix::pipe::SpliceFlags;
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::task::{Context, Poll};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// How file slices leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum FileSender {
    /// By size: see `SPLICE_BYTES_MIN`.
    #[default]
    Auto,
    Sendfile,
    /// Splice through a pooled pipe; sendfile where no pipe is left.
    Splice,
}

/// What `Auto` splices. Measured: below, both cost the same; at 1 MiB splice takes less than half the CPU of sendfile,
/// which moves 64 KiB at a time and wakes the peer for each.
pub const SPLICE_BYTES_MIN: usize = 256 << 10;
/// Bytes that one call of sendfile is asked for: the core is not left for longer than their copying takes.
const SENDFILE_BYTES_MAX: usize = 512 << 10;
/// Buffers of one sendmsg (IOV_MAX is 1,024; few enough to sit on the stack).
const IOVECS_MAX: usize = 64;
/// Queue entries that an idle connection keeps allocated.
const IDLE_FRAMES_MAX: usize = 16;

/// What is queued for one socket.
#[derive(Default)]
pub(super) struct Sender {
    queue: VecDeque<ReplyFrame>,
    /// Index of the piece of the front frame that is being sent, and how much of it has reached the socket.
    piece: usize,
    sent: usize,
    /// A pipe with bytes of the current file piece, from `sent` on.
    loaded: Option<Loaded>,
    /// Bytes of memory that queued frames hold.
    memory: usize,
}

struct Loaded {
    pipe: Pipe,
    bytes: usize,
}

/// What a socket's sending shares with its shard.
pub(super) struct SendTools<'a> {
    pub pipes: &'a PipePool,
    pub metrics: &'a ShardMetrics,
    pub choice: FileSender,
}

/// How far sending came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Nothing is left.
    Done,
    /// The socket takes no more now; the task is woken when it does.
    Blocked,
    /// `bytes_max` bytes have gone: others have their turn.
    Turn,
}

impl Sender {
    pub(super) fn push(&mut self, frame: ReplyFrame) {
        if frame.is_empty() {
            return;
        }
        self.memory += frame.memory();
        self.queue.push_back(frame);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Frames that are not wholly sent.
    pub(super) fn frames(&self) -> usize {
        self.queue.len()
    }

    /// Bytes of memory that unsent frames hold; what file slices refer to is not held.
    pub(super) fn memory(&self) -> usize {
        self.memory
    }

    /// Sends until all is gone, the socket is full, or about `bytes_max` bytes have gone. Adds to `moved`.
    ///
    /// Errors: the socket's, and `UnexpectedEof` where a file is shorter than its slice. The connection must then be
    /// closed: the peer has been promised a length that cannot be kept.
    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        stream: &TcpStream,
        tools: &SendTools<'_>,
        bytes_max: usize,
        moved: &mut usize,
    ) -> io::Result<Progress> {
        let begun = *moved;
        loop {
            let slice = match self.skip_empty() {
                Some(Piece::Bytes(_)) => None,
                Some(Piece::File(slice)) => Some(slice.clone()),
                None => return Ok(Progress::Done),
            };
            if *moved - begun >= bytes_max {
                return Ok(Progress::Turn);
            }
            let step = match slice {
                None => self.send_bytes(stream, tools),
                Some(slice) => self.send_file(stream, tools, &slice),
            };
            match step {
                Ok(bytes) => {
                    *moved += bytes;
                    tools.metrics.bytes_out.add(bytes as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => match stream.poll_write_ready(cx) {
                    Poll::Ready(ready) => ready?,
                    Poll::Pending => {
                        self.unload_unless_kept(tools.pipes);
                        return Ok(Progress::Blocked);
                    }
                },
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Gives back memory that an idle connection does not need.
    pub(super) fn slim(&mut self) {
        if self.queue.is_empty() {
            self.queue.shrink_to(IDLE_FRAMES_MAX);
        }
    }

    /// Gives the pipe back; must be called before a sender with unsent frames is dropped.
    pub(super) fn abandon(&mut self, pipes: &PipePool) {
        if let Some(loaded) = self.loaded.take() {
            pipes.discard(loaded.pipe);
        }
        self.queue.clear();
        self.memory = 0;
    }

    /// The piece to send next. Frames end here, and pieces of no length are passed over.
    fn skip_empty(&mut self) -> Option<&Piece> {
        loop {
            let frame = self.queue.front()?;
            match frame.pieces.get(self.piece) {
                Some(piece) if self.sent < piece.len() => break,
                Some(_) => {
                    self.piece += 1;
                    self.sent = 0;
                }
                None => {
                    let frame = self.queue.pop_front().expect("front was seen");
                    self.memory -= frame.memory();
                    self.piece = 0;
                    self.sent = 0;
                }
            }
        }
        self.queue.front().and_then(|frame| frame.pieces.get(self.piece))
    }

    /// One sendmsg of all bytes up to the next file slice, from as many frames as are queued.
    fn send_bytes(&mut self, stream: &TcpStream, tools: &SendTools<'_>) -> io::Result<usize> {
        let mut buffers: SmallVec<[IoSlice<'_>; IOVECS_MAX]> = SmallVec::new();
        let mut more = false;
        let (mut first, mut skip) = (self.piece, self.sent);
        'gather: for frame in &self.queue {
            for piece in frame.pieces.iter().skip(first) {
                match piece {
                    Piece::Bytes(bytes) => match bytes.get(skip..) {
                        Some(rest) if !rest.is_empty() => {
                            if buffers.len() == IOVECS_MAX {
                                more = true;
                                break 'gather;
                            }
                            buffers.push(IoSlice::new(rest));
                        }
                        _ => {}
                    },
                    Piece::File(slice) if slice.length == 0 => {}
                    // The header leaves in one segment with the first bytes of the file.
                    Piece::File(_) => {
                        more = true;
                        break 'gather;
                    }
                }
                skip = 0;
            }
            (first, skip) = (0, 0);
        }
        let flags = libc::MSG_NOSIGNAL | if more { libc::MSG_MORE } else { 0 };
        let sent = stream.try_io(Interest::WRITABLE, || {
            tools.metrics.writes.add(1);
            socket2::SockRef::from(stream).send_vectored_with_flags(&buffers, flags)
        })?;
        drop(buffers);
        self.advance(sent);
        Ok(sent)
    }

    fn send_file(&mut self, stream: &TcpStream, tools: &SendTools<'_>, slice: &FileSlice) -> io::Result<usize> {
        let left = slice.length - self.sent;
        let splice = match tools.choice {
            FileSender::Auto => left >= SPLICE_BYTES_MIN,
            FileSender::Sendfile => false,
            FileSender::Splice => true,
        };
        if self.loaded.is_none() && splice {
            self.load(stream, tools, slice, left)?;
        }
        let sent = match &mut self.loaded {
            Some(loaded) => {
                // More to come of this very piece or after it: TCP need not push a short segment.
                let more = loaded.bytes < left || after(&self.queue, self.piece);
                let flags = SpliceFlags::NONBLOCK
                    | SpliceFlags::MOVE
                    | if more { SpliceFlags::MORE } else { SpliceFlags::empty() };
                let sent = stream.try_io(Interest::WRITABLE, || {
                    tools.metrics.splice_calls.add(1);
                    let read_end = loaded.pipe.read_end();
                    Ok(rustix::pipe::splice(read_end, None, stream.as_fd(), None, loaded.bytes, flags)?)
                })?;
                loaded.bytes -= sent.min(loaded.bytes);
                if loaded.bytes == 0
                    && let Some(loaded) = self.loaded.take()
                {
                    tools.pipes.put(loaded.pipe);
                }
                sent
            }
            None => {
                let mut position = slice.position + self.sent as u64;
                stream.try_io(Interest::WRITABLE, || {
                    tools.metrics.sendfile_calls.add(1);
                    let count = left.min(SENDFILE_BYTES_MAX);
                    let file = slice.file.as_fd();
                    Ok(rustix::fs::sendfile(stream.as_fd(), file, Some(&mut position), count)?)
                })?
            }
        };
        if sent == 0 {
            return Err(short_file(slice, self.sent));
        }
        self.advance(sent);
        Ok(sent)
    }

    /// Fills a pipe with the file's next bytes, if a pipe is to be had and the socket may take something.
    fn load(&mut self, stream: &TcpStream, tools: &SendTools<'_>, slice: &FileSlice, left: usize) -> io::Result<()> {
        // Asked before the pipe is filled: a full socket would only leave a loaded pipe behind.
        stream.try_io(Interest::WRITABLE, || Ok(()))?;
        let Some(pipe) = tools.pipes.take() else { return Ok(()) };
        let mut position = slice.position + self.sent as u64;
        let count = left.min(pipe.capacity);
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        tools.metrics.splice_calls.add(1);
        match rustix::pipe::splice(slice.file.as_fd(), Some(&mut position), pipe.write_end(), None, count, flags) {
            Ok(0) => {
                tools.pipes.put(pipe);
                Err(short_file(slice, self.sent))
            }
            Ok(bytes) => {
                self.loaded = Some(Loaded { pipe, bytes });
                Ok(())
            }
            // Some file systems refuse to splice, or to do so without waiting: sendfile will say what is wrong, if so.
            Err(_) => {
                tools.pipes.discard(pipe);
                Ok(())
            }
        }
    }

    /// A blocked transfer keeps its loaded pipe only while another one is left for those that flow: what the pipe
    /// holds are references to the file's pages, and they are read again from the file later.
    fn unload_unless_kept(&mut self, pipes: &PipePool) {
        if self.loaded.is_some()
            && !pipes.may_keep()
            && let Some(loaded) = self.loaded.take()
        {
            pipes.discard(loaded.pipe);
        }
    }

    /// Counts `sent` bytes as gone, from the current piece on.
    fn advance(&mut self, mut sent: usize) {
        while sent > 0 {
            let Some(piece) = self.skip_empty() else { return };
            let left = piece.len() - self.sent;
            let step = sent.min(left);
            self.sent += step;
            sent -= step;
        }
        self.skip_empty();
    }
}

/// Whether anything follows piece `piece` of the front frame.
fn after(queue: &VecDeque<ReplyFrame>, piece: usize) -> bool {
    queue.len() > 1 || queue.front().is_some_and(|frame| frame.pieces.len() > piece + 1)
}

fn short_file(slice: &FileSlice, sent: usize) -> io::Error {
    let reason = format!(
        "a segment file ends before byte {} of a reply's slice ({} bytes at {}): its length was promised already",
        sent, slice.length, slice.position
    );
    io::Error::new(io::ErrorKind::UnexpectedEof, reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use std::rc::Rc;

    /// Ten bytes between slices, a hundred thousand times: the list of pieces took five times what was counted.
    #[test]
    fn the_list_of_a_frames_pieces_counts_as_memory() {
        let file: Rc<dyn AsFd> = Rc::new(std::fs::File::open("/dev/null").expect("there is one"));
        let mut frame = ReplyFrame::default();
        for position in 0..1000 {
            frame.pieces.push(Piece::Bytes(Bytes::from_static(&[0; 10])));
            frame.pieces.push(Piece::File(FileSlice { file: Rc::clone(&file), position, length: 70 }));
        }
        let mut sender = Sender::default();
        sender.push(frame);
        assert!(sender.memory() >= 10_000 + 2000 * size_of::<Piece>(), "{}", sender.memory());
        sender.push(ReplyFrame::from(Bytes::from_static(&[0; 10])));
        sender.abandon(&PipePool::new(0));
        assert_eq!(sender.memory(), 0);
    }
}
