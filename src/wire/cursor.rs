//! Reads Kafka's primitive types from bytes of a stranger: every read may end in "there is no more".

/// A position in bytes that are never trusted.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Cursor { bytes, position: 0 }
    }

    pub fn position(&self) -> usize {
        self.position
    }

    #[inline]
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.position
    }

    #[inline]
    pub fn skip(&mut self, length: usize) -> Option<()> {
        if length > self.remaining() {
            return None;
        }
        self.position += length;
        Some(())
    }

    #[inline]
    pub fn u8(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.position)?;
        self.position += 1;
        Some(byte)
    }

    #[inline]
    pub fn i16(&mut self) -> Option<i16> {
        self.array().map(i16::from_be_bytes)
    }

    #[inline]
    pub fn i32(&mut self) -> Option<i32> {
        self.array().map(i32::from_be_bytes)
    }

    /// An unsigned varint (KIP-482) of at most 32 bits. More bits than that are malformed, not truncated:
    /// two readers that truncate differently would disagree about all that follows.
    #[inline]
    pub fn uvarint(&mut self) -> Option<u32> {
        let first = self.u8()?;
        if first < 0x80 {
            return Some(u32::from(first));
        }
        self.uvarint_rest(first)
    }

    fn uvarint_rest(&mut self, first: u8) -> Option<u32> {
        let mut value = u32::from(first & 0x7f);
        for shift in [7, 14, 21] {
            let byte = self.u8()?;
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        let last = self.u8()?;
        if last > 0x0f {
            return None;
        }
        Some(value | u32::from(last) << 28)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let array = *self.bytes.get(self.position..)?.first_chunk::<N>()?;
        self.position += N;
        Some(array)
    }
}

#[cfg(test)]
mod tests {
    use super::Cursor;

    fn uvarint(bytes: &[u8]) -> (Option<u32>, usize) {
        let mut cursor = Cursor::new(bytes);
        (cursor.uvarint(), cursor.position())
    }

    #[test]
    fn varints_of_every_length() {
        assert_eq!(uvarint(&[0]), (Some(0), 1));
        assert_eq!(uvarint(&[0x7f, 9]), (Some(127), 1));
        assert_eq!(uvarint(&[0x80, 0x01]), (Some(128), 2));
        assert_eq!(uvarint(&[0x80, 0x80, 0x80, 0x01]), (Some(1 << 21), 4));
        assert_eq!(uvarint(&[0xff, 0xff, 0xff, 0xff, 0x0f]), (Some(u32::MAX), 5));
    }

    #[test]
    fn varints_that_end_early_or_hold_too_many_bits_are_refused() {
        assert_eq!(uvarint(&[]).0, None);
        assert_eq!(uvarint(&[0x80, 0x80]).0, None);
        assert_eq!(uvarint(&[0xff, 0xff, 0xff, 0xff, 0x10]).0, None);
        assert_eq!(uvarint(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x00]).0, None);
    }

    #[test]
    fn nothing_is_read_past_the_end() {
        let mut cursor = Cursor::new(&[0, 1, 2]);
        assert_eq!(cursor.i32(), None);
        assert_eq!(cursor.skip(4), None);
        assert_eq!(cursor.i16(), Some(1));
        assert_eq!(cursor.skip(usize::MAX), None);
        assert_eq!((cursor.u8(), cursor.u8(), cursor.remaining()), (Some(2), None, 0));
    }
}
