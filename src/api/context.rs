//! What handlers reach: the shard's own state and its handle to the control plane.

use crate::base::ids::{BrokerId, NodeId, ShardId};
use crate::cluster::image::ClusterImage;
use crate::controller::handle::ControlHandle;
use std::cell::RefCell;
use std::sync::Arc;

/// One shard's state; lives and dies on its thread.
pub struct ShardContext {
    pub node: NodeId,
    pub shard: ShardId,
    pub broker: BrokerId,
    pub control: ControlHandle,
    image: RefCell<Arc<ClusterImage>>,
}

impl ShardContext {
    /// The newest image that this shard has applied.
    pub fn image(&self) -> Arc<ClusterImage> {
        Arc::clone(&self.image.borrow())
    }
}
