//! Which APIs are served in which versions, and where a request goes.

use super::context::ShardContext;
use super::{Outcome, RequestInfo};
use bytes::Bytes;
use std::rc::Rc;

/// One served API; every file under `api/` that serves one has a `pub const SERVED: Served`.
pub struct Served {
    pub key: i16,
    /// What ApiVersions says: for Produce lower than what is accepted (KAFKA-18659).
    pub advertised_min: i16,
    pub accepted_min: i16,
    pub max: i16,
    /// Decodes the body in `info.version` and runs stage one. The body has passed the guard of `wire`.
    pub handle: fn(&Rc<ShardContext>, &RequestInfo, Bytes) -> Outcome,
}
