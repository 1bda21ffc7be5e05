//! What handlers reach: the shard's own state and its handle to the control plane.

use crate::base::config::BrokerConfig;
use crate::base::ids::{BrokerId, NodeId, ShardId};
use crate::cluster::image::ClusterImage;
use crate::controller::handle::ControlHandle;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

/// One shard's state; lives and dies on its thread.
pub struct ShardContext {
    pub node: NodeId,
    pub shard: ShardId,
    pub broker: BrokerId,
    pub control: ControlHandle,
    image: RefCell<Arc<ClusterImage>>,
    /// As read at start, without what clients set while the node runs.
    static_config: Arc<BrokerConfig>,
    /// With the dynamic settings of `image`.
    config: RefCell<Arc<BrokerConfig>>,
}

impl ShardContext {
    /// `config` is what the node was started with; the dynamic settings come from the images.
    pub fn new(
        node: NodeId,
        shard: ShardId,
        control: ControlHandle,
        config: Arc<BrokerConfig>,
        image: Arc<ClusterImage>,
    ) -> Self {
        let context = ShardContext {
            node,
            shard,
            broker: BrokerId::new(node, shard),
            control,
            image: RefCell::default(),
            config: RefCell::new(Arc::clone(&config)),
            static_config: config,
        };
        context.set_image(image);
        context
    }

    /// The newest image that this shard has applied.
    pub fn image(&self) -> Arc<ClusterImage> {
        Arc::clone(&self.image.borrow())
    }

    /// The node's settings in force: those that it was started with under the dynamic ones of the image.
    pub fn config(&self) -> Arc<BrokerConfig> {
        Arc::clone(&self.config.borrow())
    }

    /// Makes `image`, with its dynamic settings, the one that requests see from now on.
    pub fn set_image(&self, image: Arc<ClusterImage>) {
        let none = BTreeMap::new();
        let node_of = |image: &ClusterImage| image.node_settings.get(&self.node).unwrap_or(&none).clone();
        let before = self.image.replace(Arc::clone(&image));
        let (defaults, node) = (&image.broker_defaults, node_of(&image));
        if *defaults == before.broker_defaults && node == node_of(&before) {
            return;
        }
        let (config, refused) = self.static_config.with_dynamic(defaults, &node);
        for (name, error) in refused {
            tracing::warn!("the stored setting {name} is left out: {error}");
        }
        self.config.replace(Arc::new(config));
    }

    /// Shard 0 of node 0 with nothing configured.
    #[cfg(test)]
    pub fn for_tests(image: ClusterImage, control: ControlHandle) -> std::rc::Rc<Self> {
        let config = Arc::new(BrokerConfig::default());
        std::rc::Rc::new(ShardContext::new(NodeId(0), ShardId(0), control, config, Arc::new(image)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc;

    fn texts(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    #[test]
    fn settings_in_force_follow_the_image() {
        let control = ControlHandle::new(mpsc::channel(1).0);
        let context = ShardContext::for_tests(ClusterImage::default(), control);
        let max_connections = || context.config().max_connections_per_ip;
        assert_eq!(max_connections(), i32::MAX as u32);

        let everywhere = texts(&[("max.connections.per.ip", "10")]);
        let mut image = ClusterImage { broker_defaults: everywhere, ..ClusterImage::default() };
        context.set_image(Arc::new(image.clone()));
        assert_eq!(max_connections(), 10);

        image.node_settings.insert(NodeId(0), texts(&[("max.connections.per.ip", "7")]));
        image.node_settings.insert(NodeId(1), texts(&[("max.connections.per.ip", "1")]));
        context.set_image(Arc::new(image));
        assert_eq!(max_connections(), 7);

        context.set_image(Arc::new(ClusterImage::default()));
        assert_eq!(max_connections(), i32::MAX as u32);
    }
}
