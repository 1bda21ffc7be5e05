//! A file read from start to end past the page cache.
//!
//! O_DIRECT, and not reads that are forgotten by POSIX_FADV_DONTNEED, for two reasons: the latter throws out pages that
//! somebody else, a running broker, wants to keep; and a page that is in the cache hides what became of the disk below it,
//! which is what is looked for. File systems without O_DIRECT are read through the cache, with DONTNEED.

use rustix::fs::{Advice, fadvise};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of one read.
const CHUNK_BYTES: usize = 1 << 20;
/// What O_DIRECT wants of addresses, places and lengths: no file system asks for more than a page.
const ALIGN: usize = 4096;

/// What can be asked for at once.
const PIECE_BYTES_MAX: usize = CHUNK_BYTES - ALIGN;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cache {
    /// Past the page cache.
    Passed,
    /// Through it: for what a broker writes to at this moment, and has in the cache anyway. A direct read would make it
    /// write its pages out.
    Used,
}

pub struct Stream<'a> {
    path: PathBuf,
    file: File,
    cache: Cache,
    direct: bool,
    length: u64,
    buffer: Vec<u8>,
    /// Where the buffer is aligned, and how much of it is read into: no more than the file has.
    from: usize,
    chunk: usize,
    /// Which bytes of the file are in it.
    start: u64,
    filled: usize,
    /// Bytes that were read, for the progress bar.
    progress: &'a AtomicU64,
}

impl Stream<'_> {
    pub fn open<'a>(path: &Path, cache: Cache, progress: &'a AtomicU64) -> io::Result<Stream<'a>> {
        let direct = match cache {
            Cache::Passed => OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path).ok(),
            Cache::Used => None,
        };
        let (file, is_direct) = match direct {
            Some(file) => (file, true),
            None => (File::open(path)?, false),
        };
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let whole = usize::try_from(meta.len()).unwrap_or(usize::MAX).min(CHUNK_BYTES);
        let chunk = whole.next_multiple_of(ALIGN).max(ALIGN);
        let buffer = vec![0; chunk + ALIGN];
        let from = buffer.as_ptr().align_offset(ALIGN);
        Ok(Stream {
            path: path.to_owned(),
            file,
            cache,
            direct: is_direct,
            length: meta.len(),
            buffer,
            from,
            chunk,
            start: 0,
            filled: 0,
            progress,
        })
    }

    /// As it was when the file was opened: what is appended later is not looked at.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The bytes at `position`: at least `want` of them (up to `PIECE_BYTES_MAX`), or fewer where the file ends.
    pub fn at(&mut self, position: u64, want: usize) -> io::Result<&[u8]> {
        debug_assert!(want <= PIECE_BYTES_MAX);
        let left = usize::try_from(self.length.saturating_sub(position)).unwrap_or(usize::MAX);
        let want = want.min(left);
        let inside = position >= self.start && position + want as u64 <= self.start + self.filled as u64;
        if !inside {
            self.fill(position)?;
        }
        let skip = usize::try_from(position - self.start).expect("invariant: the buffer begins at most a page before");
        let held = self.buffer.get(self.from + skip..self.from + self.filled).unwrap_or_default();
        let held = held.get(..left.min(held.len())).expect("invariant: at most its length");
        if held.len() < want {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file has become shorter meanwhile"));
        }
        Ok(held)
    }

    fn fill(&mut self, position: u64) -> io::Result<()> {
        self.start = position - position % ALIGN as u64;
        self.filled = 0;
        while self.filled < self.chunk {
            let to = self.buffer.get_mut(self.from + self.filled..self.from + self.chunk);
            let to = to.expect("invariant: the buffer is a page longer than a chunk");
            let read = match self.file.read_at(to, self.start + self.filled as u64) {
                Ok(read) => read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) if self.direct && e.raw_os_error() == Some(libc::EINVAL) => {
                    self.file = File::open(&self.path)?;
                    self.direct = false;
                    continue;
                }
                Err(e) => return Err(e),
            };
            self.filled += read;
            // A direct read that is not whole pages has met the end of the file.
            if read == 0 || !read.is_multiple_of(ALIGN) || self.start + self.filled as u64 >= self.length {
                break;
            }
        }
        if !self.direct && self.cache == Cache::Passed {
            // Advice only: what stays in the cache does no harm to what is checked.
            let _ = fadvise(&self.file, self.start, std::num::NonZeroU64::new(self.filled as u64), Advice::DontNeed);
        }
        self.progress.fetch_add(self.filled as u64, Ordering::Relaxed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn every_piece_is_what_the_file_holds(
            length in 0usize..3_000_000, asked in prop::collection::vec((any::<prop::sample::Index>(), 0usize..5000), 1..40),
            passed: bool,
        ) {
            let dir = tempfile::tempdir().expect("a directory");
            let content: Vec<u8> = (0..length as u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()).take(length).collect();
            let path = dir.path().join("file");
            std::fs::write(&path, &content).expect("written");
            let progress = AtomicU64::new(0);
            let cache = if passed { Cache::Passed } else { Cache::Used };
            let mut stream = Stream::open(&path, cache, &progress).expect("opened");
            for (at, want) in asked {
                let at = at.index(length + 1);
                let piece = stream.at(at as u64, want).expect("read");
                prop_assert!(piece.len() >= want.min(length - at));
                prop_assert_eq!(piece, &content[at..at + piece.len()]);
            }
        }
    }
}
