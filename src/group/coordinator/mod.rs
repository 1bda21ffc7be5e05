//! One shard's group coordinator: it has the groups whose partition of `__consumer_offsets` the shard leads.
//!
//! A *slice* is one such partition with its groups. It is loaded from its log when the shard begins to lead it, and dropped when it
//! leads it no more. What changes a group goes through the group's state machine; what must outlive the process is a record
//! appended to the partition as acks=all promises, and answers wait for it.

mod clock;
mod consumer;
mod forget;
pub(in crate::group) mod kind;
mod load;
mod mixed;
mod patterns;
mod room;
mod slice;
mod store;
mod turns;

pub use consumer::Answered;
pub use kind::{Kind, subscribed};
pub use slice::{GroupView, Slice};

use super::classic::Limits;
use crate::base::ids::PartitionIndex;
use crate::cluster::image::ClusterImage;
use crate::partition::leader::Partition;
use clock::{Clock, Deadlines};
use kafka_protocol::ResponseError;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use tokio::task::JoinHandle;

/// The topic that holds groups and their offsets.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// The broker's settings for groups and offsets.
#[derive(Clone, Debug)]
pub struct Settings {
    pub limits: Limits,
    pub consumer: super::consumer::Limits,
    /// `offsets.retention.minutes`, in ms.
    pub retention_ms: i64,
    /// `offset.metadata.max.bytes`
    pub metadata_bytes_max: usize,
    /// What groups may take of memory; beyond it nobody new joins.
    pub bytes_max: usize,
}

/// The groups of one shard.
pub struct Coordinator {
    slices: RefCell<BTreeMap<PartitionIndex, Rc<Slice>>>,
    shared: Rc<Shared>,
    /// The node stops: nothing is taken up any more.
    is_closed: Cell<bool>,
    /// A look for expired offsets is under way.
    is_expiring: Rc<Cell<bool>>,
}

/// What all slices of a shard use.
struct Shared {
    settings: RefCell<Rc<Settings>>,
    /// The topics that members of the new protocol may have.
    image: RefCell<Arc<ClusterImage>>,
    clock: Clock,
    deadlines: Deadlines,
    loads: load::Loads,
    patterns: patterns::Turn,
    room: Rc<room::Room>,
}

impl Shared {
    fn settings(&self) -> Rc<Settings> {
        Rc::clone(&self.settings.borrow())
    }

    fn image(&self) -> Arc<ClusterImage> {
        Arc::clone(&self.image.borrow())
    }
}

impl Coordinator {
    pub fn new(settings: Settings) -> Coordinator {
        Coordinator::with_clock(settings, Clock::default())
    }

    fn with_clock(settings: Settings, clock: Clock) -> Coordinator {
        let settings = RefCell::new(Rc::new(settings));
        let shared = Shared {
            settings,
            image: RefCell::default(),
            clock,
            deadlines: Deadlines::default(),
            loads: load::Loads::default(),
            patterns: patterns::Turn::default(),
            room: Rc::default(),
        };
        Coordinator {
            slices: RefCell::default(),
            shared: Rc::new(shared),
            is_closed: Cell::default(),
            is_expiring: Rc::default(),
        }
    }

    /// Bytes of the note beside a committed offset, at most.
    pub fn metadata_bytes_max(&self) -> usize {
        self.shared.settings().metadata_bytes_max
    }

    pub fn settings(&self) -> Rc<Settings> {
        self.shared.settings()
    }

    pub fn set_settings(&self, settings: Settings) {
        self.shared.settings.replace(Rc::new(settings));
    }

    /// The image that requests see from now on. Offsets of topics that it has no more are forgotten before anybody can commit others.
    pub fn set_image(&self, image: &Arc<ClusterImage>) {
        let before = self.shared.image.replace(Arc::clone(image));
        let gone = before.topics.values().filter(|topic| image.topic_by_id(topic.id).is_none());
        let names: BTreeSet<Arc<str>> = gone.map(|topic| Arc::clone(&topic.name)).collect();
        if !names.is_empty() {
            self.slices().iter().for_each(|slice| slice.topics_gone(&names));
        }
    }

    /// The partitions of `__consumer_offsets` that the shard leads now: new ones are loaded, those that are gone are given up.
    pub fn leads(&self, partitions: &[Rc<Partition>]) {
        if !self.is_closed.get() {
            self.take_up(partitions);
        }
    }

    /// The node stops: members that wait for each other are told to look for another coordinator.
    pub fn close(&self) {
        self.is_closed.set(true);
        self.take_up(&[]);
    }

    fn take_up(&self, partitions: &[Rc<Partition>]) {
        let gone: Vec<Rc<Slice>> = {
            let mut slices = self.slices.borrow_mut();
            let still = |slice: &Rc<Slice>| partitions.iter().any(|partition| Rc::ptr_eq(partition, slice.partition()));
            let (kept, gone) = std::mem::take(&mut *slices).into_iter().partition(|(_, slice)| still(slice));
            *slices = kept;
            let gone: BTreeMap<PartitionIndex, Rc<Slice>> = gone;
            for partition in partitions {
                slices.entry(partition.index()).or_insert_with(|| {
                    let slice = Slice::new(Rc::clone(partition), Rc::clone(&self.shared));
                    load::begin(&slice);
                    slice
                });
            }
            gone.into_values().collect()
        };
        gone.iter().for_each(|slice| slice.unload());
    }

    /// The slice of this partition of `__consumer_offsets`, ready to be asked.
    pub fn slice_of(&self, partition: PartitionIndex) -> Result<Rc<Slice>, ResponseError> {
        let slices = self.slices.borrow();
        let slice = Rc::clone(slices.get(&partition).ok_or(ResponseError::NotCoordinator)?);
        drop(slices);
        slice.heed_disk();
        slice.check_loaded()?;
        Ok(slice)
    }

    /// All slices, those that are being loaded included.
    pub fn slices(&self) -> Vec<Rc<Slice>> {
        self.slices.borrow().values().cloned().collect()
    }

    /// Logs may have failed: their groups are given up.
    pub fn heed_disks(&self) {
        self.slices().iter().for_each(|slice| slice.heed_disk());
    }

    /// Feeds groups the passing of time, for ever.
    pub async fn run_clock(&self) {
        loop {
            let (partition, group) = self.shared.deadlines.due(&self.shared.clock).await;
            let slice = self.slices.borrow().get(&partition).cloned();
            if let Some(slice) = slice {
                slice.tick(&group);
            }
        }
    }

    /// Forgets offsets that nobody has wanted for long, by the wall clock in ms since 1970, and groups that have none left (KIP-211).
    /// Goes on in the background; nothing happens while it still does so for an earlier time.
    pub fn expire(&self, now_ms: i64) -> JoinHandle<()> {
        let (slices, is_busy) = (self.slices(), Rc::clone(&self.is_expiring));
        tokio::task::spawn_local(async move {
            if is_busy.replace(true) {
                return;
            }
            for slice in slices {
                slice.expire(now_ms).await;
            }
            is_busy.set(false);
        })
    }
}

/// The partition of `__consumer_offsets` that has a group: Java's hash of its name, as every Kafka broker counts it.
pub fn partition_of(group: &str, partitions: u32) -> PartitionIndex {
    let hash = group.encode_utf16().fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    // Kafka's abs: the sign bit is cut off.
    let index = (hash & i32::MAX) as u32 % partitions.max(1);
    PartitionIndex(index as i32)
}

#[cfg(test)]
mod tests;
