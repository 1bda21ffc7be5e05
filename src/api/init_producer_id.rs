//! InitProducerId (key 22).
//!
//! Versions: 0-5 (KIP-98, KIP-360). Gives idempotent producers their ids. A shard takes ids from the control plane in
//! blocks (KIP-730), so that handing one out needs no other core.
//!
//! Omission: a transactional id is refused (INVALID_REQUEST, which producers take as fatal): there are no transactions.

use super::context::ShardContext;
use super::registry::Served;
use super::{Outcome, RequestInfo};
use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};
use std::rc::Rc;

pub const SERVED: Served = Served { key: 22, advertised_min: 0, accepted_min: 0, max: 5, handle };

/// Producer id and epoch of a request that names none.
const NONE: i64 = -1;

/// Ids that were allotted to this shard and are not handed out yet.
#[derive(Debug, Default)]
pub struct ProducerIdBlock {
    next: i64,
    end: i64,
}

impl ProducerIdBlock {
    fn take(&mut self) -> Option<i64> {
        let id = self.next;
        (id < self.end).then(|| {
            self.next += 1;
            id
        })
    }
}

fn handle(context: &Rc<ShardContext>, info: &RequestInfo, body: Bytes) -> Outcome {
    info.decoded(body, |request: InitProducerIdRequest| {
        // KIP-360: who names a producer names its epoch too.
        let half_given = (request.producer_id.0 == NONE) != (i64::from(request.producer_epoch) == NONE);
        if request.transactional_id.is_some() || half_given {
            return info.reply(&refused(ResponseError::InvalidRequest));
        }
        if let Some(id) = context.producer_ids.borrow_mut().take() {
            return info.reply(&granted(id));
        }
        let (context, info) = (Rc::clone(context), info.clone());
        Outcome::Wait(Box::pin(async move {
            let answer = match take_from_new_block(&context).await {
                Ok(id) => granted(id),
                Err(code) => refused(code),
            };
            info.answer(&answer)
        }))
    })
}

async fn take_from_new_block(context: &ShardContext) -> Result<i64, ResponseError> {
    // Another request may have fetched a block meanwhile.
    if let Some(id) = context.producer_ids.borrow_mut().take() {
        return Ok(id);
    }
    let (first, count) = context.control.allocate_producer_ids().await.map_err(|e| e.code)?;
    let mut block = ProducerIdBlock { next: first, end: first + i64::from(count) };
    let id = block.take().ok_or(ResponseError::CoordinatorLoadInProgress)?;
    let mut current = context.producer_ids.borrow_mut();
    // Of two blocks the fuller one is kept; the rest of the other is never used, as after a restart.
    if block.end - block.next > current.end - current.next {
        *current = block;
    }
    Ok(id)
}

fn granted(id: i64) -> InitProducerIdResponse {
    InitProducerIdResponse::default().with_producer_id(ProducerId(id)).with_producer_epoch(0)
}

fn refused(code: ResponseError) -> InitProducerIdResponse {
    InitProducerIdResponse::default()
        .with_error_code(code.code())
        .with_producer_id(ProducerId(-1))
        .with_producer_epoch(-1)
}
