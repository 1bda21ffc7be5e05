//! A file read from its start to its end, that knows where it is.

use super::DumpError;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

/// Where a file is damaged, and how.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("corrupt at byte {position}: {reason}")]
pub struct Corrupt {
    pub position: u64,
    pub reason: String,
}

impl Corrupt {
    pub fn at(position: u64, reason: impl Into<String>) -> DumpError {
        DumpError::Corrupt(Corrupt { position, reason: reason.into() })
    }
}

pub struct FileReader {
    input: BufReader<File>,
    pub position: u64,
    pub length: u64,
}

const BUFFER_BYTES: usize = 1 << 20;

impl FileReader {
    pub fn open(path: &Path) -> Result<FileReader, DumpError> {
        let file = File::open(path).map_err(DumpError::Read)?;
        let meta = file.metadata().map_err(DumpError::Read)?;
        if !meta.is_file() {
            return Err(DumpError::Read(io::Error::other("it is not a regular file")));
        }
        Ok(FileReader { input: BufReader::with_capacity(BUFFER_BYTES, file), position: 0, length: meta.len() })
    }

    pub fn remaining(&self) -> u64 {
        self.length.saturating_sub(self.position)
    }

    pub fn read_exact(&mut self, buffer: &mut [u8]) -> Result<(), DumpError> {
        self.input.read_exact(buffer).map_err(DumpError::Read)?;
        self.position += buffer.len() as u64;
        Ok(())
    }

    /// The rest of the file if it consists of zeros only: how many. Reads up to the first other byte.
    pub fn zeros_to_the_end(&mut self) -> Result<Option<u64>, DumpError> {
        let zeros = self.remaining();
        let mut buffer = [0u8; 8192];
        loop {
            match self.input.read(&mut buffer).map_err(DumpError::Read)? {
                0 => return Ok(Some(zeros)),
                n => {
                    if buffer.iter().take(n).any(|b| *b != 0) {
                        return Ok(None);
                    }
                }
            }
        }
    }
}

/// A big-endian integer at a place of an entry whose size is known.
macro_rules! field {
    ($entry:expr, $at:expr, $type:ty) => {
        <$type>::from_be_bytes(
            *$entry.get($at..).and_then(|bytes| bytes.first_chunk()).expect("invariant: the entry is that long"),
        )
    };
}
pub(super) use field;
