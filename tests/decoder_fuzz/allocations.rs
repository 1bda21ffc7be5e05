//! An allocator that counts, for each thread by itself.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

pub struct Counting;

thread_local! {
    /// Bytes allocated less bytes freed since the measurement began; negative when older memory was freed.
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
    /// Printed when one allocation is so large that it is likely to end the process.
    static LABEL: Cell<u64> = const { Cell::new(0) };
}

/// Runs `work`; also tells by how many bytes this thread's memory stood higher meanwhile, at most.
pub fn peak_of<T>(work: impl FnOnce() -> T) -> (T, usize) {
    LIVE.set(0);
    PEAK.set(0);
    let result = work();
    (result, PEAK.get().max(0) as usize)
}

/// Names the work that follows on this thread in the message that precedes a death by allocation.
pub fn set_label(label: u64) {
    LABEL.set(label);
}

const SUSPICIOUS_BYTES: usize = 1 << 30;

fn note(change: isize) {
    let live = LIVE.get() + change;
    LIVE.set(live);
    PEAK.set(PEAK.get().max(live));
}

/// Speaks without allocating.
fn warn_of(size: usize) {
    use std::io::Write;
    let mut line = [0u8; 120];
    let mut rest = &mut line[..];
    let _ = writeln!(rest, "iteration {} asks for {size} bytes at once", LABEL.get());
    let length = 120 - rest.len();
    let _ = std::io::stderr().write(&line[..length]);
}

// SAFETY: all memory comes from and returns to the system allocator with the very layouts that our callers gave.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() > SUSPICIOUS_BYTES {
            warn_of(layout.size());
        }
        note(layout.size() as isize);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        note(-(layout.size() as isize));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // While the bytes are moved, both exist.
        note(size as isize);
        note(-(layout.size() as isize));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}
