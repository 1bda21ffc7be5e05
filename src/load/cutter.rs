//! Cuts what a socket delivered into answers. Pure.
//!
//! One buffer serves all connections of a thread, always from its beginning, so that it stays in the cache; what a connection's last
//! read left unfinished is kept aside for it.

/// More is no answer that a broker gives to what is asked here.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// A length that no answer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an answer's length makes no sense: is this a Kafka broker?")]
pub struct NotKafka;

/// The unfinished answer of one connection.
#[derive(Default)]
pub struct Cutter {
    partial: Vec<u8>,
}

impl Cutter {
    /// Puts what was left at the buffer's beginning, makes sure that as much as `room` and the whole unfinished answer fit
    /// behind it, and tells where the next read goes.
    pub fn prepare(&mut self, buffer: &mut Vec<u8>, room: usize) -> Result<usize, NotKafka> {
        let kept = self.partial.len();
        let needed = frame_bytes(&self.partial)?.unwrap_or(0).max(kept + room);
        if buffer.len() < needed {
            buffer.resize(needed, 0);
        }
        buffer[..kept].copy_from_slice(&self.partial);
        Ok(kept)
    }

    /// Calls `take` for each whole answer (behind its length) in what is there now, and keeps the rest.
    pub fn cut<E: From<NotKafka>>(
        &mut self,
        filled: &[u8],
        mut take: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut rest = filled;
        while let Some(length) = frame_bytes(rest)? {
            let Some((frame, behind)) = rest.split_at_checked(length) else { break };
            take(&frame[LENGTH_BYTES..])?;
            rest = behind;
        }
        self.partial.clear();
        self.partial.extend_from_slice(rest);
        Ok(())
    }
}

const LENGTH_BYTES: usize = 4;

/// Bytes of the first frame with its length, if that is here.
pub fn frame_bytes(bytes: &[u8]) -> Result<Option<usize>, NotKafka> {
    let Some(length) = bytes.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
    match usize::try_from(i32::from_be_bytes(*length)) {
        Ok(length) if length <= ANSWER_BYTES_MAX => Ok(Some(LENGTH_BYTES + length)),
        _ => Err(NotKafka),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_cut_wherever_reads_end() {
        let frames: Vec<Vec<u8>> = [1, 5, 3000, 0, 7000, 8].iter().map(|n| vec![*n as u8; *n as usize]).collect();
        let stream: Vec<u8> =
            frames.iter().flat_map(|frame| [&(frame.len() as u32).to_be_bytes()[..], frame].concat()).collect();
        for step in [1, 2, 3, 5, 100, 2999, 20_000] {
            let (mut cutter, mut buffer, mut found) = (Cutter::default(), Vec::new(), Vec::new());
            for chunk in stream.chunks(step) {
                let at = cutter.prepare(&mut buffer, step).expect("lengths are sound");
                buffer[at..at + chunk.len()].copy_from_slice(chunk);
                let filled = buffer[..at + chunk.len()].to_vec();
                let cut = cutter.cut(&filled, |frame| {
                    found.push(frame.to_vec());
                    Ok::<(), NotKafka>(())
                });
                cut.expect("lengths are sound");
            }
            assert_eq!(found, frames, "{step}");
        }
    }

    #[test]
    fn a_length_that_cannot_be_is_refused() {
        for length in [[0xff; 4], [0x7f, 0, 0, 0]] {
            assert_eq!(Cutter::default().cut(&length, |_| Ok::<(), NotKafka>(())), Err(NotKafka));
        }
    }
}
