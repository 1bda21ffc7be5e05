//! Where the floor keeps what it is sent.

use rustix::fs::OFlags;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Bytes of the disk that durable writes go over, as large as a journal's ring.
const RING_BYTES: u64 = 64 << 20;
const BLOCK: usize = 4096;
/// How long what was written to a topic that is gone keeps its memory: as `file.delete.delay.ms` of brokers. Who writes to pages that were free a
/// moment ago pays less than brokers do.
const KEPT: Duration = Duration::from_secs(60);

/// Goes when it is closed.
fn data_file(dir: &Path) -> io::Result<File> {
    File::options().read(true).write(true).custom_flags(OFlags::TMPFILE.bits() as i32).open(dir)
}

/// A thread's files: one that grows in the page cache, and a ring that is written past it.
pub struct Store {
    dir: PathBuf,
    pub file: File,
    /// Of topics that are gone, and since when.
    gone: Vec<(Instant, File)>,
    /// Where each batch begins, and the end.
    pub bounds: Vec<u64>,
    ring: File,
    ring_at: u64,
    group: Vec<u8>,
    /// Of the group's memory: where the first block begins.
    aligned: usize,
    generation: u64,
}

impl Store {
    pub fn new(dir: &Path, number: u16) -> anyhow::Result<Store> {
        let file = data_file(dir)?;
        let path = dir.join(format!("ring-{number}"));
        // Written once, so that no write makes the file system place anything.
        std::fs::write(&path, vec![0; RING_BYTES as usize])?;
        File::open(&path)?.sync_all()?;
        let flags = (OFlags::DIRECT | OFlags::DSYNC).bits() as i32;
        let ring = OpenOptions::new().write(true).custom_flags(flags).open(&path)?;
        let mut group: Vec<u8> = Vec::with_capacity(RING_BYTES as usize + BLOCK);
        let aligned = group.as_ptr().align_offset(BLOCK);
        group.resize(aligned, 0);
        Ok(Store {
            dir: dir.to_path_buf(),
            file,
            gone: Vec::new(),
            bounds: vec![0],
            ring,
            ring_at: 0,
            group,
            aligned,
            generation: 0,
        })
    }

    /// Begins anew with each topic.
    pub fn follow(&mut self, generation: u64) -> io::Result<()> {
        if self.generation != generation {
            self.generation = generation;
            self.bounds.truncate(1);
            self.gone.retain(|(since, _)| since.elapsed() < KEPT);
            self.gone.push((Instant::now(), std::mem::replace(&mut self.file, data_file(&self.dir)?)));
        }
        Ok(())
    }

    pub fn append(&mut self, buffer: &[u8], batches: &[std::ops::Range<usize>], durable: bool) -> anyhow::Result<()> {
        if batches.is_empty() {
            return Ok(());
        }
        if durable {
            for batch in batches {
                if self.group.len() + batch.len() > self.group.capacity() - BLOCK {
                    self.sync()?;
                }
                self.group.extend_from_slice(&buffer[batch.clone()]);
            }
            return Ok(());
        }
        for batches in batches.chunks(1024) {
            let begin = self.bounds[self.bounds.len() - 1];
            let mut end = begin;
            for batch in batches {
                end += batch.len() as u64;
                self.bounds.push(end);
            }
            let slices: Vec<IoSlice> = batches.iter().map(|batch| IoSlice::new(&buffer[batch.clone()])).collect();
            let written = rustix::io::pwritev(&self.file, &slices, begin)? as u64;
            anyhow::ensure!(begin + written == end, "the disk is full");
        }
        Ok(())
    }

    /// One write for all that is durable.
    pub fn sync(&mut self) -> io::Result<()> {
        let bytes = self.group.len() - self.aligned;
        if bytes == 0 {
            return Ok(());
        }
        let whole = bytes.next_multiple_of(BLOCK);
        self.group.resize(self.aligned + whole, 0);
        if self.ring_at + whole as u64 > RING_BYTES {
            self.ring_at = 0;
        }
        self.ring.write_all_at(&self.group[self.aligned..], self.ring_at)?;
        self.ring_at += whole as u64;
        self.group.truncate(self.aligned);
        Ok(())
    }

    /// The next whole batches within so many bytes, at least one; at the file's end it begins again. Position, length, next batch.
    pub fn slice(&self, cursor: usize, max_bytes: u64) -> (u64, u64, usize) {
        let batches = self.bounds.len() - 1;
        if batches == 0 {
            return (0, 0, 0);
        }
        let cursor = if cursor >= batches { 0 } else { cursor };
        let begin = self.bounds[cursor];
        let fitting = self.bounds[cursor + 1..].partition_point(|end| end - begin <= max_bytes).max(1);
        (begin, self.bounds[cursor + fitting] - begin, cursor + fitting)
    }
}
