//! Handing out producer ids in blocks (KIP-730).

use super::super::handle::AdminResult;
use super::super::layout;
use super::refuse;
use crate::base::ids::BrokerId;
use crate::coordination::{CreateMode, Op};
use kafka_protocol::ResponseError;

/// Ids of one block.
pub const BLOCK_SIZE: i32 = 1000;

/// The next block: its first id, and the step that reserves it. `last` is what the node holds: the last id handed out,
/// with the node's version; None where no block was handed out yet.
pub fn next_block(last: Option<(i64, i32)>, broker: BrokerId) -> AdminResult<(i64, Op)> {
    let size = i64::from(BLOCK_SIZE);
    match last {
        Some((last, _)) if last > i64::MAX - size => {
            refuse(ResponseError::UnknownServerError, "Have exhausted all producerIds.")
        }
        Some((last, version)) => {
            let data = layout::encode_producer_ids(broker, last + 1, last + size);
            Ok((last + 1, Op::set(layout::PRODUCER_IDS, data, Some(version))))
        }
        None => {
            let data = layout::encode_producer_ids(broker, 0, size - 1);
            Ok((0, Op::create(layout::PRODUCER_IDS, data, CreateMode::Persistent)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_follow_each_other_to_the_end() {
        let broker = BrokerId(1);
        let (first, op) = next_block(None, broker).unwrap();
        assert!(first == 0 && matches!(op, Op::Create { .. }));
        let (first, op) = next_block(Some((999, 4)), broker).unwrap();
        assert!(first == 1000 && matches!(op, Op::Set { version: Some(4), .. }));
        assert!(next_block(Some((i64::MAX - 1000, 4)), broker).is_ok());
        let error = next_block(Some((i64::MAX - 999, 4)), broker).unwrap_err();
        assert_eq!(error.message.as_deref(), Some("Have exhausted all producerIds."));
    }
}
