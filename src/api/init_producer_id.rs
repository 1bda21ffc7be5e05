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
use tokio::sync::Semaphore;

pub const SERVED: Served = Served { key: 22, advertised_min: 0, accepted_min: 0, max: 5, handle };

/// Producer id and epoch of a request that names none.
const NONE: i64 = -1;

/// Ids that were allotted to this shard and are not handed out yet.
#[derive(Debug)]
pub struct ProducerIdBlock {
    next: i64,
    end: i64,
    /// Who holds it fetches the next block; the others wait for what it brings.
    fetching: Rc<Semaphore>,
}

impl Default for ProducerIdBlock {
    fn default() -> Self {
        ProducerIdBlock { next: 0, end: 0, fetching: Rc::new(Semaphore::new(1)) }
    }
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
    let fetching = Rc::clone(&context.producer_ids.borrow().fetching);
    let _turn = fetching.acquire().await.expect("it is never closed");
    // Another request may have fetched a block meanwhile.
    if let Some(id) = context.producer_ids.borrow_mut().take() {
        return Ok(id);
    }
    let (first, count) = context.control.allocate_producer_ids().await.map_err(|e| e.code)?;
    let mut block = context.producer_ids.borrow_mut();
    (block.next, block.end) = (first, first + i64::from(count));
    block.take().ok_or(ResponseError::CoordinatorLoadInProgress)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::testing::{self, Broker};
    use crate::controller::handle::Command;
    use std::task::{Context, Waker};

    /// A thousand producers that started at once took a thousand blocks, each a write to the coordination store.
    #[test]
    fn who_comes_while_a_block_is_fetched_waits_for_it() {
        let broker = Broker::with(testing::image(1));
        let request = InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1);
        let [first, second, gone] = [(); 3].map(|()| broker.dispatch(testing::frame(4, &request)));
        let (Outcome::Wait(mut second), Outcome::Wait(mut gone)) = (second, gone) else {
            panic!("nobody has an id yet");
        };
        let mut context = Context::from_waker(Waker::noop());
        let mut fetched = 0;
        let first = broker.settle(first, |command| {
            let Command::AllocateProducerIds { reply } = command else { panic!("another command") };
            fetched += 1;
            assert!(gone.as_mut().poll(&mut context).is_pending());
            assert!(second.as_mut().poll(&mut context).is_pending());
            assert!(reply.send(Ok((5000, 2))).is_ok());
        });
        // A connection that ends must not take the turn along.
        drop(gone);
        let second = broker.settle(Outcome::Wait(second), |_| panic!("there is an id left"));
        let ids = [first, second].map(|told| {
            let told: InitProducerIdResponse = broker.decode_reply(4, told);
            (told.error_code, told.producer_id.0, told.producer_epoch)
        });
        assert_eq!((ids, fetched), ([(0, 5000, 0), (0, 5001, 0)], 1));
    }
}
