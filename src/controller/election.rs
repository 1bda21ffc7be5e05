//! Who controls: one multi that creates `/controller` and raises `/controller_epoch`, so that two can never both win.
//! Every later write of the controller checks the epoch's version, so that one who lost without noticing is refused.

use super::layout::{self, CONTROLLER, CONTROLLER_EPOCH};
use super::{ControlError, plan};
use crate::base::clock::now_ms;
use crate::base::ids::{BrokerId, NodeId};
use crate::cluster::image::Broker;
use crate::coordination::{Coordination, CreateMode, MultiError, Op, Store, StoreError};
use bytes::Bytes;

/// A won election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leadership {
    pub epoch: i32,
    /// Version of `/controller_epoch` while nobody else has won.
    pub version: i32,
}

impl Leadership {
    /// The step that refuses a multi of a controller that is none any more.
    pub fn check(&self) -> Op {
        Op::check(CONTROLLER_EPOCH, self.version)
    }
}

/// Makes the nodes that everything else hangs from, where they are missing, and checks whose store it is.
pub async fn prepare(store: &Store, node: NodeId, cluster_id: &str) -> Result<(), ControlError> {
    for path in layout::ROOTS {
        ensure(store, path, Bytes::new()).await?;
    }
    ensure(store, CONTROLLER_EPOCH, "0".into()).await?;
    let no_settings = layout::encode_config(&Default::default());
    ensure(store, &layout::broker_config_path(None), no_settings.clone()).await?;
    ensure(store, &layout::broker_config_path(Some(node)), no_settings).await?;
    ensure(store, layout::CLUSTER_ID, layout::encode_cluster_id(cluster_id)).await?;
    let (data, _) = store.get(layout::CLUSTER_ID).await?;
    let found = layout::decode_cluster_id(&data)?;
    if found != cluster_id {
        return Err(ControlError::OtherCluster { expected: cluster_id.into(), found });
    }
    Ok(())
}

/// Registers this node's shards as brokers, all or none, for as long as the session lasts.
pub async fn register(store: &Store, brokers: &[Broker]) -> Result<(), ControlError> {
    let data = |broker| layout::encode_broker(broker, now_ms());
    let ops = brokers
        .iter()
        .map(|broker| Op::create(layout::broker_path(broker.id), data(broker), CreateMode::Ephemeral))
        .collect();
    match store.multi(ops).await {
        Ok(_) => Ok(()),
        Err(MultiError { index, error: StoreError::NodeExists }) => Err(ControlError::BrokerTaken(brokers[index].id)),
        Err(error) => Err(error.into()),
    }
}

/// Tries to become the controller. None: another is.
pub async fn elect(store: &Store, candidate: BrokerId) -> Result<Option<Leadership>, ControlError> {
    for _ in 0..plan::ATTEMPTS_MAX {
        let (data, stat) = store.get(CONTROLLER_EPOCH).await?;
        let epoch = layout::decode_controller_epoch(&data)? + 1;
        let ops = vec![
            Op::create(CONTROLLER, layout::encode_controller(candidate, now_ms()), CreateMode::Ephemeral),
            Op::set(CONTROLLER_EPOCH, epoch.to_string(), Some(stat.version)),
        ];
        let won = Leadership { epoch, version: stat.version + 1 };
        match store.multi(ops).await {
            Ok(_) => return Ok(Some(won)),
            Err(MultiError { error: StoreError::NodeExists, .. }) => return Ok(None),
            // Another won and is gone again between the two requests.
            Err(MultiError { error: StoreError::BadVersion, .. }) => {}
            // It may have been applied: what the store says now decides.
            Err(MultiError { error: StoreError::ConnectionLoss, .. }) => {
                if holds(store, candidate, won).await? {
                    return Ok(Some(won));
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}

/// The broker that `/controller` names; None while there is none.
pub async fn controller(store: &Store) -> Result<Option<BrokerId>, ControlError> {
    match store.get(CONTROLLER).await {
        Ok((data, _)) => Ok(Some(layout::decode_controller(&data)?)),
        Err(StoreError::NoNode) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn holds(store: &Store, candidate: BrokerId, won: Leadership) -> Result<bool, ControlError> {
    let (data, stat) = store.get(CONTROLLER_EPOCH).await?;
    let same_epoch = stat.version == won.version && layout::decode_controller_epoch(&data)? == won.epoch;
    Ok(same_epoch && controller(store).await? == Some(candidate))
}

async fn ensure(store: &Store, path: &str, data: Bytes) -> Result<(), ControlError> {
    if store.exists(path).await?.is_some() {
        return Ok(());
    }
    match store.create(path, data, CreateMode::Persistent).await {
        Ok(_) | Err(StoreError::NodeExists) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
