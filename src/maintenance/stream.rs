//! Files as streams, several requests ahead: by direct I/O on glommio's ring, or through the page cache and out of it again.

use super::context::{Context, Engine, Operation};
use crate::log::file::forget_cached;
use glommio::GlommioError;
use glommio::io::{DmaBuffer, DmaFile, ReadResult};
use glommio::task::JoinHandle;
use rustix::fs::{Advice, fadvise};
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::ops::{Deref, Range};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

/// Bytes of a file as a stream gave them.
pub struct Chunk {
    bytes: Bytes,
    range: Range<usize>,
}

enum Bytes {
    Direct(ReadResult),
    Plain(Vec<u8>),
}

/// A part of a file, read from its begin to its end.
pub struct Reader {
    context: Context,
    path: PathBuf,
    file: ReadFrom,
    /// Where the next chunk is to be read, and where the next one that `next` gives begins.
    ask: u64,
    position: u64,
    end: u64,
}

enum ReadFrom {
    Direct { file: Rc<DmaFile>, ahead: VecDeque<JoinHandle<io::Result<ReadResult>>> },
    Plain { file: Arc<File> },
}

/// A file that is written from its begin to its end.
pub struct Writer {
    context: Context,
    file: WriteTo,
    position: u64,
}

enum WriteTo {
    Direct { file: Rc<DmaFile>, buffer: Option<DmaBuffer>, filled: usize, behind: VecDeque<JoinHandle<io::Result<()>>> },
    Plain { file: Arc<File>, buffer: Vec<u8> },
}

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let all: &[u8] = match &self.bytes {
            Bytes::Direct(bytes) => bytes,
            Bytes::Plain(bytes) => bytes,
        };
        &all[self.range.clone()]
    }
}

impl Reader {
    pub(super) async fn open(context: Context, path: &Path, range: Range<u64>) -> io::Result<Reader> {
        let file = match context.engine() {
            Engine::Ring => match DmaFile::open(path).await.map_err(plain) {
                Ok(file) => Some(ReadFrom::Direct { file: Rc::new(file), ahead: VecDeque::new() }),
                Err(e) if is_indirect(&e) => None,
                Err(e) => return Err(e),
            },
            Engine::Plain => None,
        };
        let file = match file {
            Some(file) => file,
            None => {
                let path = path.to_owned();
                ReadFrom::Plain { file: Arc::new(context.blocking(move || open_plain(&path)).await??) }
            }
        };
        let ask = match &file {
            ReadFrom::Direct { file, .. } => file.align_down(range.start),
            ReadFrom::Plain { .. } => range.start,
        };
        let (position, end) = (range.start, range.end.max(range.start));
        Ok(Reader { context, path: path.to_owned(), file, ask, position, end })
    }

    /// Where the next chunk begins.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next bytes; None at the end of the range.
    pub async fn next(&mut self) -> io::Result<Option<Chunk>> {
        if self.position == self.end {
            return Ok(None);
        }
        let (chunk_bytes, chunks_ahead) = self.context.chunks();
        let chunk_end = self.end.min(self.position + chunk_bytes as u64);
        self.context.lost().read(&self.path, &(self.position..chunk_end))?;
        let chunk = match &mut self.file {
            ReadFrom::Direct { file, ahead } => {
                while ahead.len() < chunks_ahead && self.ask < self.end {
                    // Whole chunks, even where the range ends within one.
                    ahead.push_back(read_direct(&self.context, Rc::clone(file), (self.ask, chunk_bytes)));
                    self.ask += chunk_bytes as u64;
                }
                let at = file.align_down(self.position);
                let read = ahead.pop_front().expect("a read is under way while the end is not reached").await;
                let bytes = read.ok_or_else(|| io::Error::other("a read was given up"))??;
                let from = (self.position - at) as usize;
                let to = (bytes.len() as u64).min(self.end - at) as usize;
                if to <= from || (at + (to as u64) < self.end && to < chunk_bytes) {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                Chunk { bytes: Bytes::Direct(bytes), range: from..to }
            }
            ReadFrom::Plain { file } => {
                let (file, position) = (Arc::clone(file), self.position);
                let length = (self.end - position).min(chunk_bytes as u64) as usize;
                let bytes = self.context.blocking(move || read_plain(&file, position, length)).await??;
                Chunk { range: 0..bytes.len(), bytes: Bytes::Plain(bytes) }
            }
        };
        self.position += chunk.len() as u64;
        self.context.spend(chunk.len()).await;
        Ok(Some(chunk))
    }
}

impl Writer {
    pub(super) async fn create(context: Context, path: &Path) -> io::Result<Writer> {
        if context.engine() == Engine::Ring {
            match DmaFile::create(path).await.map_err(plain) {
                Ok(file) => {
                    let (buffer, filled, behind) = (None, 0, VecDeque::new());
                    let file = WriteTo::Direct { file: Rc::new(file), buffer, filled, behind };
                    return Ok(Writer { context, file, position: 0 });
                }
                Err(e) if is_indirect(&e) => {}
                Err(e) => return Err(e),
            }
        }
        let path = path.to_owned();
        let file = Arc::new(context.blocking(move || File::create(path)).await??);
        Ok(Writer { context, file: WriteTo::Plain { file, buffer: Vec::new() }, position: 0 })
    }

    /// Bytes that were taken.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Takes all of `bytes`; waits while too much is under way.
    pub async fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        self.context.spend(bytes.len()).await;
        let (chunk_bytes, _) = self.context.chunks();
        while !bytes.is_empty() {
            let taken = match &mut self.file {
                WriteTo::Direct { file, buffer, filled, .. } => {
                    let to = buffer.get_or_insert_with(|| file.alloc_dma_buffer(chunk_bytes));
                    let taken = bytes.len().min(chunk_bytes - *filled);
                    to.as_bytes_mut()[*filled..*filled + taken].copy_from_slice(&bytes[..taken]);
                    *filled += taken;
                    taken
                }
                WriteTo::Plain { buffer, .. } => {
                    let taken = bytes.len().min(chunk_bytes - buffer.len());
                    buffer.extend_from_slice(&bytes[..taken]);
                    taken
                }
            };
            bytes = &bytes[taken..];
            self.position += taken as u64;
            if self.position.is_multiple_of(chunk_bytes as u64) {
                self.pass_on().await?;
            }
        }
        Ok(())
    }

    /// Hands the buffer to the kernel.
    async fn pass_on(&mut self) -> io::Result<()> {
        let end = self.position;
        let (_, chunks_behind) = self.context.chunks();
        match &mut self.file {
            WriteTo::Direct { file, buffer, filled, behind } => {
                let Some(mut full) = buffer.take() else { return Ok(()) };
                let at = end - *filled as u64;
                // Direct writes are of whole blocks; `finish` cuts what is too much.
                let length = file.align_up(*filled as u64) as usize;
                full.as_bytes_mut()[*filled..length].fill(0);
                full.trim_to_size(length);
                *filled = 0;
                while behind.len() >= chunks_behind {
                    ended(behind.pop_front()).await?;
                }
                behind.push_back(write_direct(&self.context, Rc::clone(file), full, at));
            }
            WriteTo::Plain { file, buffer } => {
                let (file, buffer) = (Arc::clone(file), std::mem::take(buffer));
                let at = end - buffer.len() as u64;
                self.context.blocking(move || write_plain(&file, &buffer, at)).await??;
            }
        }
        Ok(())
    }

    /// Everything is on disk when it returns, but not the file's name; gives the bytes in it.
    pub async fn finish(mut self) -> io::Result<u64> {
        self.pass_on().await?;
        let bytes = self.position;
        match self.file {
            WriteTo::Direct { file, mut behind, .. } => {
                while let Some(write) = behind.pop_front() {
                    ended(Some(write)).await?;
                }
                if file.align_up(bytes) != bytes {
                    file.truncate(bytes).await.map_err(plain)?;
                }
                file.fdatasync().await.map_err(plain)?;
                file.close_rc().await.map_err(plain)?;
            }
            WriteTo::Plain { file, .. } => {
                let sync = move || {
                    file.sync_all()?;
                    let _ = fadvise(&*file, 0, None, Advice::DontNeed);
                    io::Result::Ok(())
                };
                self.context.blocking(sync).await??;
            }
        }
        Ok(bytes)
    }
}

/// It is waited for before the thread ends, even if nobody wants its bytes any more: the kernel writes to its memory.
fn read_direct(context: &Context, file: Rc<DmaFile>, (at, length): (u64, usize)) -> JoinHandle<io::Result<ReadResult>> {
    let operation = context.begin();
    glommio::spawn_local(async move {
        let read = file.read_at_aligned(at, length).await;
        end(file, operation).await;
        read.map_err(plain)
    })
    .detach()
}

fn write_direct(context: &Context, file: Rc<DmaFile>, buffer: DmaBuffer, at: u64) -> JoinHandle<io::Result<()>> {
    let operation = context.begin();
    glommio::spawn_local(async move {
        let length = buffer.len();
        let written = file.write_at(buffer, at).await;
        end(file, operation).await;
        match written {
            Ok(written) if written == length => Ok(()),
            Ok(_) => Err(io::ErrorKind::WriteZero.into()),
            Err(e) => Err(plain(e)),
        }
    })
    .detach()
}

/// The last one that uses a file closes it.
async fn end(file: Rc<DmaFile>, operation: Operation) {
    let _ = file.close_rc().await;
    drop(operation);
}

async fn ended(write: Option<JoinHandle<io::Result<()>>>) -> io::Result<()> {
    let Some(write) = write else { return Ok(()) };
    write.await.ok_or_else(|| io::Error::other("a write was given up"))?
}

/// As direct I/O does, what follows reads what is on the disk: pages whose write-back failed look clean, and are not believed.
fn open_plain(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    forget_cached(&file, 0)?;
    Ok(file)
}

fn read_plain(file: &File, position: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, position)?;
    // Others' pages are better used; those that are dirty stay.
    let _ = fadvise(file, position, NonZeroU64::new(length as u64), Advice::DontNeed);
    Ok(bytes)
}

fn write_plain(file: &File, bytes: &[u8], position: u64) -> io::Result<()> {
    file.write_all_at(bytes, position)
}

/// The error of the operating system, with its number: what it means for the disk is decided by that.
fn plain(error: GlommioError<()>) -> io::Error {
    match error {
        GlommioError::IoError(error) | GlommioError::EnhancedIoError { source: error, .. } => error,
        other => other.into(),
    }
}

/// Whether a file system said that it has no direct I/O.
fn is_indirect(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EINVAL) || error.kind() == io::ErrorKind::InvalidInput
}
