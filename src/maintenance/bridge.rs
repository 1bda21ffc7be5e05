//! Streams for what blocks: a thread beside reads them as it would a file, and the maintenance thread fetches for it.

use super::context::Context;
use super::stream::Reader;
use futures_util::future::join;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use tokio::sync::mpsc;

/// Chunks that wait for the thread, beside those that the stream itself is ahead.
const WAITING_MAX: usize = 2;

/// Opens streams from a thread that blocks.
pub struct Streams {
    asks: mpsc::Sender<Ask>,
}

/// A stream that a thread wants.
struct Ask {
    path: PathBuf,
    range: Range<u64>,
    chunks: mpsc::Sender<io::Result<Vec<u8>>>,
    /// What the thread has read comes back, to be filled again: fresh memory costs more than the copy.
    spent: mpsc::Receiver<Vec<u8>>,
}

struct Piped {
    chunks: mpsc::Receiver<io::Result<Vec<u8>>>,
    spent: mpsc::Sender<Vec<u8>>,
    chunk: Vec<u8>,
    at: usize,
    left: u64,
}

impl Streams {
    /// A part of a file, to be read from its begin to its end.
    pub fn read(&self, path: &Path, range: Range<u64>) -> io::Result<impl Read + use<>> {
        let left = range.end.saturating_sub(range.start);
        let (sender, chunks) = mpsc::channel(WAITING_MAX);
        let (spent, receiver) = mpsc::channel(WAITING_MAX + 1);
        let ask = Ask { path: path.to_owned(), range, chunks: sender, spent: receiver };
        self.asks.blocking_send(ask).map_err(|_| given_up())?;
        Ok(Piped { chunks, spent, chunk: Vec::new(), at: 0, left })
    }
}

impl Context {
    /// As `blocking`, for work that reads much. If the job is cancelled, its streams end in errors.
    pub async fn blocking_with_streams<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Streams) -> T + Send + 'static,
    ) -> io::Result<T> {
        let (asks, mut asked) = mpsc::channel(1);
        let work = self.blocking(move || work(&Streams { asks }));
        let fetching = async {
            while let Some(ask) = asked.recv().await {
                fetch(self, ask).await;
            }
        };
        join(work, fetching).await.0
    }
}

/// Ends with the part, or when the thread wants no more of it.
async fn fetch(context: &Context, ask: Ask) {
    let Ask { path, range, chunks, mut spent } = ask;
    let mut reader = match context.read(&path, range).await {
        Ok(reader) => reader,
        Err(e) => return drop(chunks.send(Err(e)).await),
    };
    while let Some(next) = next(&mut reader, &mut spent).await.transpose() {
        let is_last = next.is_err();
        if chunks.send(next).await.is_err() || is_last {
            return;
        }
    }
}

async fn next(reader: &mut Reader, spent: &mut mpsc::Receiver<Vec<u8>>) -> io::Result<Option<Vec<u8>>> {
    let Some(chunk) = reader.next().await? else { return Ok(None) };
    let mut bytes = spent.try_recv().unwrap_or_default();
    bytes.clear();
    bytes.extend_from_slice(&chunk);
    Ok(Some(bytes))
}

impl Read for Piped {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 || to.is_empty() {
            return Ok(0);
        }
        if self.at == self.chunk.len() {
            let next = self.chunks.blocking_recv().ok_or_else(given_up)??;
            let spent = std::mem::replace(&mut self.chunk, next);
            self.at = 0;
            // Where there is no room for it, it is freed.
            let _ = self.spent.try_send(spent);
        }
        let length = to.len().min(self.chunk.len() - self.at);
        to[..length].copy_from_slice(&self.chunk[self.at..self.at + length]);
        self.at += length;
        self.left -= length as u64;
        Ok(length)
    }
}

fn given_up() -> io::Error {
    io::Error::other("given up: the node is stopping")
}
