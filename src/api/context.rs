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
    /// `auto.create.topics.enable`.
    pub auto_create_topics_enable: bool,
    image: RefCell<Arc<ClusterImage>>,
}

impl ShardContext {
    pub fn new(node: NodeId, shard: ShardId, control: ControlHandle, image: Arc<ClusterImage>) -> Self {
        ShardContext {
            node,
            shard,
            broker: BrokerId::new(node, shard),
            control,
            auto_create_topics_enable: true,
            image: RefCell::new(image),
        }
    }

    /// The newest image that this shard has applied.
    pub fn image(&self) -> Arc<ClusterImage> {
        Arc::clone(&self.image.borrow())
    }

    /// Makes `image` the one that requests see from now on.
    pub fn set_image(&self, image: Arc<ClusterImage>) {
        self.image.replace(image);
    }

    /// Shard 0 of node 0 with nothing configured.
    #[cfg(test)]
    pub fn for_tests(image: ClusterImage, control: ControlHandle) -> std::rc::Rc<Self> {
        std::rc::Rc::new(ShardContext::new(NodeId(0), ShardId(0), control, Arc::new(image)))
    }
}
