//! Memory as direct I/O wants it: aligned to blocks.

use super::format::BLOCK;

#[derive(Clone, Copy)]
#[repr(C, align(4096))]
struct Block([u8; BLOCK]);

const _: () = assert!(size_of::<Block>() == BLOCK);

/// Zeroed, aligned memory that grows by whole blocks.
#[derive(Default)]
pub struct Blocks(Vec<Block>);

impl Blocks {
    pub fn zeroed(bytes: usize) -> Blocks {
        let mut blocks = Blocks::default();
        blocks.reserve(bytes);
        blocks
    }

    /// At least so many bytes from now on.
    pub fn reserve(&mut self, bytes: usize) {
        let count = bytes.div_ceil(BLOCK);
        if count > self.0.len() {
            self.0.resize(count, Block([0; BLOCK]));
        }
    }

    pub fn len(&self) -> usize {
        self.0.len() * BLOCK
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn bytes(&self) -> &[u8] {
        // SAFETY: blocks are plain bytes without padding, side by side.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), self.len()) }
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let length = self.len();
        // SAFETY: as above, and the exclusive borrow of the vector is passed on.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), length) }
    }
}

impl AsRef<[u8]> for Blocks {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}
