//! Changes that tend to hurt decoders.

use super::generate::uvarint;
use fastrand::Rng;

const HOSTILE_I32: [i32; 10] = [i32::MAX, i32::MIN, -1, -2, 0, 1, 0x7fff, 0x00ff_ffff, 400_001, 0x1000_0000];
const HOSTILE_VARINTS: [u32; 8] = [u32::MAX, u32::MAX - 1, 1 << 31, 0x0fff_ffff, 400_002, 0x4000, 0x80, 0];
const FRAME_BYTES_MAX: usize = 1 << 17;

/// One change of `frame`; `other` lends bytes. The first four bytes are the frame's size, which is mostly kept true.
pub fn mutate(frame: &mut Vec<u8>, other: &[u8], rng: &mut Rng) {
    let at = rng.usize(4.min(frame.len())..=frame.len());
    match rng.u8(..12) {
        0 => overwrite(frame, at, &HOSTILE_I32[rng.usize(..HOSTILE_I32.len())].to_be_bytes()),
        1 => overwrite(frame, at, &uvarint(HOSTILE_VARINTS[rng.usize(..HOSTILE_VARINTS.len())])),
        2 => overwrite(frame, at, &rng.i16(..).to_be_bytes()),
        3 => overwrite(frame, at, &[rng.choice([0u8, 1, 2, 0x7f, 0x80, 0xff]).expect("one")]),
        4 => overwrite(frame, at, &[rng.u8(..)]),
        5 => frame.truncate(at),
        6 => splice(frame, at, 0, &uvarint(HOSTILE_VARINTS[rng.usize(..HOSTILE_VARINTS.len())])),
        7 => splice(frame, at, rng.usize(..9), &[]),
        8 => {
            let from = rng.usize(..=other.len());
            let to = rng.usize(from..=other.len());
            splice(frame, at, 0, &other[from..to]);
        }
        9 => repeat(frame, at, rng),
        // Another version, or another API, over the same bytes.
        10 => overwrite(frame, 6, &rng.i16(-1..20).to_be_bytes()),
        _ => overwrite(frame, 4, &rng.i16(-1..72).to_be_bytes()),
    }
    if rng.u8(..32) != 0 {
        let size = (frame.len() as i32 - 4).max(0);
        overwrite(frame, 0, &size.to_be_bytes());
    }
}

fn overwrite(frame: &mut [u8], at: usize, bytes: &[u8]) {
    for (to, from) in frame.iter_mut().skip(at).zip(bytes) {
        *to = *from;
    }
}

fn splice(frame: &mut Vec<u8>, at: usize, removed: usize, bytes: &[u8]) {
    let end = (at + removed).min(frame.len());
    frame.splice(at..end, bytes.iter().copied());
}

/// Many copies of a short stretch: arrays and tagged sections that go on and on.
fn repeat(frame: &mut Vec<u8>, at: usize, rng: &mut Rng) {
    let end = (at + rng.usize(1..20)).min(frame.len());
    let stretch = frame[at..end].to_vec();
    let room = FRAME_BYTES_MAX.saturating_sub(frame.len()) / stretch.len().max(1);
    let copies_max = room.min(1 << rng.u32(..15));
    let copies = stretch.repeat(rng.usize(..=copies_max));
    splice(frame, at, 0, &copies);
}
