//! The control plane's loop: one task that owns the session with the store and the image, takes commands one at a time,
//! and answers each when all shards serve by the image that it led to.
//!
//! A node that loses the election keeps the brokers of its image current, answers NOT_CONTROLLER, and stands again when
//! the controller is gone.

use super::election::{self, Leadership};
use super::handle::{AdminError, AdminResult, Command};
use super::layout;
use super::load::{self, Loaded};
use super::perform::{Performed, perform};
use super::plan::{self, Change, Context, Ids};
use super::publish::{Published, ShardUpdate, publish};
use super::{ControlError, plan::producer_ids};
use crate::base::config::BrokerConfig;
use crate::base::ids::{BrokerId, NodeId};
use crate::base::limits::SHARD_APPLY_MS_MAX;
use crate::cluster::edit::Edit;
use crate::cluster::image::{Broker, ClusterImage};
use crate::coordination::{Coordination, NodeEvent, Op, Store, StoreError, Watch, WatchEvent};
use kafka_protocol::ResponseError;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// What the control plane is given.
pub struct Params {
    pub store: Store,
    pub node: NodeId,
    /// The cluster that this node's directories were formatted for.
    pub cluster_id: String,
    /// This node's shards, as clients see them; at least one.
    pub brokers: Vec<Broker>,
    /// The node's static settings.
    pub config: Arc<BrokerConfig>,
    /// The node did not stop in good order: partitions that it led get new leader epochs.
    pub unclean: bool,
    /// Seeds ids of topics and partitions; must be random.
    pub seed: u64,
    pub commands: mpsc::Receiver<Command>,
    /// One for each shard of this node.
    pub shards: Vec<mpsc::Sender<ShardUpdate>>,
    /// Told when every shard has applied the first image.
    pub ready: oneshot::Sender<Arc<ClusterImage>>,
    /// A message, or the sender's end, stops the control plane after the command in hand.
    pub shutdown: oneshot::Receiver<()>,
}

/// Runs until `shutdown`, or until it cannot go on. The session with the store is closed in good order only at
/// `shutdown`.
pub async fn run(params: Params) -> Result<(), ControlError> {
    let Params { store, node, cluster_id, brokers, config, unclean, seed, mut commands, shards, ready, mut shutdown } =
        params;
    let candidate = brokers.first().expect("a node has a shard").id;
    election::prepare(&store, node, &cluster_id).await?;
    // Watches before reads, so that nothing falls between.
    let mut controllers = store.watch(layout::CONTROLLER).await?;
    let mut registrations = store.watch(layout::BROKER_IDS).await?;
    election::register(&store, &brokers).await?;
    let mut control = Control {
        leadership: None,
        store,
        node,
        candidate,
        cluster_id,
        in_force: (*config).clone(),
        config,
        unclean,
        ids: Ids::new(seed),
        image: Arc::default(),
        shards,
        late: false,
    };
    control.stand().await?;
    // Nobody may be waiting for it: the node decides that.
    let _ = ready.send(Arc::clone(&control.image));
    loop {
        tokio::select! {
            biased;
            _ = &mut shutdown => return Ok(control.store.close().await?),
            event = next(&mut controllers) => control.controller_changed(event?).await?,
            event = next(&mut registrations) => control.brokers_changed(event?).await?,
            command = commands.recv() => match command {
                Some(command) => control.command(command).await?,
                None => return Ok(control.store.close().await?),
            },
            () = tokio::time::sleep(REPUBLISH_AFTER), if control.late => control.publish().await?,
        }
    }
}

/// An image that some shard has not taken in time is offered again after this.
const REPUBLISH_AFTER: Duration = Duration::from_secs(1);

struct Control {
    store: Store,
    node: NodeId,
    /// The broker that stands for this node at elections.
    candidate: BrokerId,
    cluster_id: String,
    config: Arc<BrokerConfig>,
    /// `config` with the dynamic settings over it.
    in_force: BrokerConfig,
    /// Not yet acted on: partitions that this node led need new leader epochs.
    unclean: bool,
    ids: Ids,
    /// None: another is the controller.
    leadership: Option<Leadership>,
    image: Arc<ClusterImage>,
    shards: Vec<mpsc::Sender<ShardUpdate>>,
    /// Some shard has not applied the image.
    late: bool,
}

/// None: events were missed.
async fn next(watch: &mut Watch) -> Result<Option<NodeEvent>, ControlError> {
    match watch.next().await {
        WatchEvent::Node(event) => Ok(Some(event)),
        WatchEvent::Missed => Ok(None),
        WatchEvent::Expired => Err(StoreError::SessionExpired.into()),
    }
}

impl Control {
    async fn command(&mut self, command: Command) -> Result<(), ControlError> {
        // A receiver that is gone wants no answer; the change was made all the same.
        match command {
            Command::CreateTopics { topics, validate_only, reply } => {
                let plan =
                    |context: &Context, ids: &mut Ids| plan::topics::create(context, &topics, validate_only, ids);
                let _ = reply.send(self.decide(topics.len(), plan).await?);
            }
            Command::DeleteTopics { topics, reply } => {
                let plan = |context: &Context, _: &mut Ids| plan::topics::delete(context, &topics);
                let _ = reply.send(self.decide(topics.len(), plan).await?);
            }
            Command::CreatePartitions { topics, validate_only, reply } => {
                let plan =
                    |context: &Context, ids: &mut Ids| plan::partitions::add(context, &topics, validate_only, ids);
                let _ = reply.send(self.decide(topics.len(), plan).await?);
            }
            Command::AlterConfigs { changes, validate_only, reply } => {
                let plan = |context: &Context, _: &mut Ids| plan::configs::alter(context, &changes, validate_only);
                let _ = reply.send(self.decide(changes.len(), plan).await?);
            }
            Command::AllocateProducerIds { reply } => {
                let _ = reply.send(self.allocate_producer_ids().await?);
            }
        }
        Ok(())
    }

    /// Plans, performs, publishes; plans again where the store is not what the image says.
    async fn decide<T>(
        &mut self,
        asked: usize,
        plan: impl Fn(&Context, &mut Ids) -> (Vec<AdminResult<T>>, Change),
    ) -> Result<Vec<AdminResult<T>>, ControlError> {
        for _ in 0..plan::ATTEMPTS_MAX {
            let Some(leadership) = self.leadership else {
                return Ok((0..asked).map(|_| Err(not_controller())).collect());
            };
            let context = Context {
                image: &self.image,
                config: &self.in_force,
                node: self.node,
                controller_epoch: leadership.epoch,
            };
            let (answers, change) = plan(&context, &mut self.ids);
            if change.is_empty() {
                return Ok(answers);
            }
            match perform(&self.store, leadership, change.ops).await? {
                Performed::All => {
                    self.edit(change.edits);
                    self.publish().await?;
                    return Ok(answers);
                }
                Performed::Stale => self.reload().await?,
                Performed::Fenced => self.resign().await?,
                Performed::Refused(error) => {
                    self.reload().await?;
                    let refused = AdminError {
                        code: ResponseError::UnknownServerError,
                        message: Some(format!("The coordination store refused the change: {error}")),
                    };
                    return Ok(answers.into_iter().map(|answer| answer.and(Err(refused.clone()))).collect());
                }
            }
        }
        let restless = AdminError {
            code: ResponseError::RequestTimedOut,
            message: Some("The cluster kept changing while the request was carried out".into()),
        };
        Ok((0..asked).map(|_| Err(restless.clone())).collect())
    }

    async fn allocate_producer_ids(&mut self) -> Result<AdminResult<(i64, i32)>, ControlError> {
        for _ in 0..plan::ATTEMPTS_MAX {
            let Some(leadership) = self.leadership else { return Ok(Err(not_controller())) };
            let last = match self.store.get(layout::PRODUCER_IDS).await {
                Ok((data, stat)) => Some((layout::decode_producer_ids(&data)?, stat.version)),
                Err(StoreError::NoNode) => None,
                Err(error) => return Err(error.into()),
            };
            let (first, op) = match producer_ids::next_block(last, self.candidate) {
                Ok(block) => block,
                Err(error) => return Ok(Err(error)),
            };
            match perform(&self.store, leadership, vec![op]).await? {
                Performed::All => return Ok(Ok((first, producer_ids::BLOCK_SIZE))),
                Performed::Stale => {}
                Performed::Fenced => self.resign().await?,
                Performed::Refused(StoreError::NoSpace(_)) => break,
                Performed::Refused(error) => return Err(error.into()),
            }
        }
        Ok(Err(AdminError { code: ResponseError::CoordinatorLoadInProgress, message: None }))
    }

    /// Reads the store, brings it in order where this node is the controller, and publishes what results.
    async fn reload(&mut self) -> Result<(), ControlError> {
        for _ in 0..plan::ATTEMPTS_MAX {
            let loaded = load::load(&self.store, &self.cluster_id).await?;
            let Some(leadership) = self.leadership else {
                self.adopt(loaded.image, plan::recover::as_stored(loaded.topics));
                return self.publish().await;
            };
            match self.bring_in_order(leadership, loaded).await? {
                Performed::All => return self.publish().await,
                Performed::Stale => {}
                Performed::Fenced => self.lose(),
                Performed::Refused(error) => return Err(error.into()),
            }
        }
        Err(ControlError::Restless)
    }

    async fn bring_in_order(&mut self, leadership: Leadership, loaded: Loaded) -> Result<Performed, ControlError> {
        let Loaded { image, topics, deleting, orphans } = loaded;
        // Left where they are, they would keep their names from ever being created.
        let forget = orphans.iter().map(|name| Op::delete(layout::topic_config_path(name), None)).collect();
        let performed = perform(&self.store, leadership, forget).await?;
        if performed != Performed::All {
            return Ok(performed);
        }
        for topic in &deleting {
            tracing::info!(topic, "going on with a deletion that was cut short");
            let remains = load::remains(&self.store, topic).await?;
            let performed = perform(&self.store, leadership, remains).await?;
            if performed != Performed::All {
                return Ok(performed);
            }
        }
        let context =
            Context { image: &image, config: &self.in_force, node: self.node, controller_epoch: leadership.epoch };
        let Change { ops, edits } = plan::recover::recover(&context, topics, self.unclean, &mut self.ids);
        if !ops.is_empty() {
            tracing::info!(steps = ops.len(), unclean = self.unclean, "bringing partitions in order");
        }
        let performed = perform(&self.store, leadership, ops).await?;
        if performed == Performed::All {
            self.unclean = false;
            self.adopt(image, edits);
        }
        Ok(performed)
    }

    /// Takes an image that was read whole; topics that are what they were keep their `Arc`s.
    fn adopt(&mut self, mut image: ClusterImage, edits: Vec<Edit>) {
        image.version = self.image.version;
        let edits = edits.into_iter().map(|edit| match edit {
            Edit::PutTopic(topic) => match self.image.topic(&topic.name) {
                Some(old) if **old == *topic => Edit::PutTopic(Arc::clone(old)),
                _ => Edit::PutTopic(topic),
            },
            other => other,
        });
        self.image = Arc::new(image.edited(edits));
        self.refresh_settings();
    }

    fn edit(&mut self, edits: Vec<Edit>) {
        let settings = edits.iter().any(|edit| matches!(edit, Edit::BrokerDefaults(_) | Edit::NodeSettings(..)));
        self.image = Arc::new(self.image.edited(edits));
        if settings {
            self.refresh_settings();
        }
    }

    fn refresh_settings(&mut self) {
        let none = BTreeMap::new();
        let own = self.image.node_settings.get(&self.node).unwrap_or(&none);
        let (in_force, refused) = self.config.with_dynamic(&self.image.broker_defaults, own);
        for (name, error) in refused {
            tracing::warn!(name, %error, "a stored setting cannot be used and is left out");
        }
        self.in_force = in_force;
    }

    async fn publish(&mut self) -> Result<(), ControlError> {
        let patience = Duration::from_millis(SHARD_APPLY_MS_MAX);
        match publish(&self.shards, &self.image, patience).await {
            Published::Everywhere => self.late = false,
            Published::Late(shards) => {
                self.late = true;
                tracing::warn!(shards, version = self.image.version, "shards are slow to apply an image");
            }
            Published::ShardGone => return Err(ControlError::ShardGone),
        }
        Ok(())
    }

    async fn controller_changed(&mut self, event: Option<NodeEvent>) -> Result<(), ControlError> {
        let gone = matches!(event, None | Some(NodeEvent::Deleted(_)));
        if self.leadership.is_some() && !gone {
            return Ok(());
        }
        let controller = election::controller(&self.store).await?;
        if self.leadership.is_some() && controller == Some(self.candidate) {
            return Ok(());
        }
        if controller.is_none() {
            return self.stand().await;
        }
        self.lose();
        self.edit(vec![Edit::Controller(controller)]);
        self.publish().await
    }

    async fn brokers_changed(&mut self, _: Option<NodeEvent>) -> Result<(), ControlError> {
        let brokers = load::brokers(&self.store).await?;
        if brokers == self.image.brokers {
            return Ok(());
        }
        self.edit(vec![Edit::Brokers(brokers)]);
        self.publish().await
    }

    /// After a refused write: another is the controller, or was for a moment.
    async fn resign(&mut self) -> Result<(), ControlError> {
        self.lose();
        match election::controller(&self.store).await? {
            // Our own session holds the node, and yet the epoch was raised: someone wrote it by hand. Start anew.
            Some(controller) if controller == self.candidate => {
                match self.store.delete(layout::CONTROLLER, None).await {
                    Ok(()) | Err(StoreError::NoNode) => self.stand().await,
                    Err(error) => Err(error.into()),
                }
            }
            Some(controller) => {
                self.edit(vec![Edit::Controller(Some(controller))]);
                self.publish().await
            }
            None => self.stand().await,
        }
    }

    async fn stand(&mut self) -> Result<(), ControlError> {
        self.leadership = election::elect(&self.store, self.candidate).await?;
        if let Some(leadership) = self.leadership {
            tracing::info!(epoch = leadership.epoch, "this node is the controller");
        }
        self.reload().await
    }

    fn lose(&mut self) {
        if let Some(leadership) = self.leadership.take() {
            tracing::warn!(epoch = leadership.epoch, "this node is not the controller any more");
        }
    }
}

fn not_controller() -> AdminError {
    AdminError { code: ResponseError::NotController, message: None }
}

#[cfg(test)]
#[path = "drive_tests.rs"]
mod tests;
