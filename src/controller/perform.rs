//! A plan's steps on the store: in as few requests as their size allows, each fenced by the controller's epoch.

use super::election::Leadership;
use crate::base::limits::STORE_REQUEST_BYTES_MAX;
use crate::coordination::{Coordination, MultiError, Op, Store, StoreError};

/// What became of a plan's steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Performed {
    /// All of them, durably.
    All,
    /// The store is not what the plan was made for; some requests may have been applied. Read it again.
    Stale,
    /// Another is the controller: nothing more may be written.
    Fenced,
    /// The store does not take a request, for good; some before it may have been applied.
    Refused(StoreError),
}

/// Performs the steps in order. An error is the store's own failure.
pub async fn perform(store: &Store, leadership: Leadership, ops: Vec<Op>) -> Result<Performed, StoreError> {
    for request in requests(leadership, ops) {
        let Err(MultiError { index, error }) = store.multi(request).await else { continue };
        return match error {
            StoreError::BadVersion | StoreError::NoNode if index == 0 => Ok(Performed::Fenced),
            StoreError::BadVersion | StoreError::NoNode | StoreError::NodeExists | StoreError::NotEmpty => {
                Ok(Performed::Stale)
            }
            StoreError::Full { .. }
            | StoreError::NoSpace(_)
            | StoreError::TooLarge { .. }
            | StoreError::BadArguments(_)
            | StoreError::NoChildrenForEphemerals => Ok(Performed::Refused(error)),
            StoreError::ConnectionLoss
            | StoreError::Unavailable(_)
            | StoreError::SessionExpired
            | StoreError::Failed(_) => Err(error),
        };
    }
    Ok(Performed::All)
}

fn requests(leadership: Leadership, ops: Vec<Op>) -> Vec<Vec<Op>> {
    let mut requests: Vec<Vec<Op>> = Vec::new();
    let mut bytes = usize::MAX;
    for op in ops {
        let more = op.request_bytes();
        if bytes.saturating_add(more) > STORE_REQUEST_BYTES_MAX {
            let check = leadership.check();
            bytes = check.request_bytes();
            requests.push(vec![check]);
        }
        bytes += more;
        requests.last_mut().expect("the first step opens a request").push(op);
    }
    requests
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_is_fenced_and_within_the_bound() {
        let leadership = Leadership { epoch: 3, version: 7 };
        let ops: Vec<Op> = (0..30).map(|n| Op::set(format!("/{n}"), vec![0; 90_000], None)).collect();
        let requests = requests(leadership, ops.clone());
        assert_eq!(requests.len(), 3);
        for request in &requests {
            assert_eq!(request[0], Op::check("/controller_epoch", 7));
            assert!(request.iter().map(Op::request_bytes).sum::<usize>() <= STORE_REQUEST_BYTES_MAX);
        }
        let performed: Vec<Op> = requests.into_iter().flat_map(|request| request.into_iter().skip(1)).collect();
        assert_eq!(performed, ops, "in order, none lost");
    }
}
