//! A node from start to stop: settings, data directories, ports, shards, control plane.

use super::counters::Counters;
use super::disks::Reserves;
use super::format::{self, LogDir, Opened, Wanted};
use super::inventory::{self, Inventory};
use super::probe::{self, Probe, count};
use super::shard_main::{self, Ended, ShardParams};
use super::{checkpoints, cores};
use crate::base::config::file::{self, Given};
use crate::base::config::{BrokerConfig, FlushPolicy};
use crate::base::disks::{Health, LogDirs};
use crate::base::ids::{BrokerId, NodeId, SHARDS_PER_NODE, ShardId};
use crate::base::limits::{CHECKPOINTS_WAITING_MAX, CONTROL_COMMANDS_MAX, SHARD_APPLY_MS_MAX};
use crate::base::notify::notify;
use crate::cluster::image::{Broker, ClusterImage};
use crate::controller::handle::ControlHandle;
use crate::controller::{ControlError, drive};
use crate::coordination::embedded::EmbeddedStore;
use crate::coordination::{MultiError, Store, StoreError};
use crate::journal;
use crate::maintenance;
use crate::partition::checkpoints::CheckpointSender;
use crate::partition::table::FoundLogDir;
use crate::shard::listener::{SocketSettings, bind};
use crate::shard::runtime::{self, ShardThread, cpu_of};
use crate::shard::{ConnectionLimits, FileSender, NetSettings};
use anyhow::{Context, bail};
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::net::{IpAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, info, warn};

/// Images that wait for a shard: it applies one at a time, and a newer one holds all of an older.
const UPDATES_MAX: usize = 4;
/// Descriptors that are neither connections nor segments: rings, pipes, epoll, listeners, journal.
const DESCRIPTORS_RESERVED: usize = 200;

/// How long a stop waits for the command in hand: longer than that waits for the shards, so that only the store's disk can keep it.
const CONTROL_PATIENCE: Duration = Duration::from_millis(2 * SHARD_APPLY_MS_MAX);
/// How long a stop waits for the writer of checkpoints, after all shards have ended.
const CHECKPOINT_WRITER_PATIENCE: Duration = Duration::from_secs(5);

/// A shard's bound ports, and what clients are told of it.
type BoundShard = (Vec<TcpListener>, Broker);

/// What `corelog serve` was told.
#[derive(Clone, Debug, Default)]
pub struct ServeOptions {
    pub config: Option<PathBuf>,
    /// `--set name=value`, in order.
    pub set: Vec<(String, String)>,
    pub shards: Option<u16>,
    pub cores: Option<cores::Choice>,
    /// Missing data directories to give up: paths or ids.
    pub forget_dirs: Vec<String>,
}

/// Runs a node until SIGTERM or SIGINT. Blocks.
pub fn serve(options: &ServeOptions) -> anyhow::Result<()> {
    let config = load(options)?;
    let probe = Probe::new(config.log_dirs.iter().cloned());
    if let Some(obstacle) = probe.obstacle() {
        bail!(obstacle);
    }
    crate::wire::encode::prepare().context("no address space for replies (see ulimit -v)")?;
    let allowed = cores::chosen(options.cores.as_ref(), config.cores)?;
    let Prepared { opened, bound, inventory, store, disks, reserves, store_dir } =
        prepare(&config, options, allowed.len())?;
    let Inventory { dirs: found, deleted, .. } = inventory;
    say_what_was_found(&config, &opened, &allowed);
    let config = Arc::new(config.in_effect(opened.shards, allowed.len()));
    let (maintenance, maintenance_thread) =
        maintenance::start(maintenance::Settings::default()).context("starting the maintenance thread")?;
    let (commands, command_queue) = mpsc::channel(CONTROL_COMMANDS_MAX);
    let control = ControlHandle::new(commands, Arc::default());
    let (checkpoint_sender, checkpoint_queue) = mpsc::channel(CHECKPOINTS_WAITING_MAX);
    let (stop, stopped) = watch::channel(false);
    let budget = Budget::new(probe.open_files, opened.shards);
    let (mut updates, mut brokers, mut threads) = (Vec::new(), Vec::new(), Vec::new());
    let mut counters = Counters::default();
    let (ended, outcomes) = std::sync::mpsc::channel();
    for (shard, (listeners, broker)) in (0u16..).zip(bound) {
        let (sender, queue) = mpsc::channel(UPDATES_MAX);
        updates.push(sender);
        let metrics = counters.add(broker.id);
        let params = ShardParams {
            broker: broker.id,
            listeners,
            control: control.of_shard(Arc::clone(&metrics)),
            updates: queue,
            checkpoints: CheckpointSender::new(shard, checkpoint_sender.clone(), Arc::clone(&metrics)),
            config: Arc::clone(&config),
            found: found.clone(),
            disks: Arc::clone(&disks),
            open_files_max: budget.segments,
            net: net_settings(&config, budget.connections),
            metrics,
            maintenance: maintenance.clone(),
            stop: stopped.clone(),
        };
        brokers.push(broker);
        let cpu = cpu_of(ShardId(shard), &allowed, allowed.len());
        let ended = ended.clone();
        threads.push(runtime::spawn(ShardId(shard), cpu, move || shard_main::run_and_tell(params, ended))?);
    }
    drop((control, checkpoint_sender, stopped, ended));
    // Shards serve as long as somebody could send them an image: also after a control plane that has lost its disk.
    let held = updates.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = tokio::task::LocalSet::new().block_on(&runtime, async {
        tokio::task::spawn_local(reserves.watch());
        tokio::task::spawn_local(counters.clone().tell_on_signal()?);
        tokio::task::spawn_local(inventory::remove_deleted(maintenance.clone(), deleted));
        let checkpoint_writer =
            tokio::task::spawn_local(checkpoints::run(found, (opened.shards, Arc::clone(&disks)), checkpoint_queue));
        let control = |ready, shutdown| -> anyhow::Result<_> {
            let (end, shutdown_control) = oneshot::channel();
            let control = drive::run(drive::Params {
                store: Store::Embedded(store.connect()),
                node: opened.node_id,
                cluster_id: opened.cluster_id.clone(),
                brokers: brokers.clone(),
                config: Arc::clone(&config),
                unclean: opened.dirs.iter().any(|dir| !dir.was_clean),
                seed: fastrand::u64(..),
                commands: command_queue,
                shards: updates,
                ready,
                shutdown: shutdown_control,
            });
            let patience = CONTROL_PATIENCE;
            Ok(unless_its_disk_failed(control, (shutdown, end), (store_dir, Arc::clone(&disks)), patience))
        };
        let ended = run_until_signal(control, &brokers, stop, lost_all(&disks)).await;
        drop(held);
        // Whatever ended it: shards stop in good order, and their last checkpoints are written meanwhile.
        let joined = join(threads, outcomes).await;
        end_of(checkpoint_writer).await?;
        ended.and(joined)
    });
    // A disk that does not answer must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    maintenance_thread.stop();
    let unclean = ended?;
    counters.log();
    mark_clean(&opened.dirs, unclean, &disks);
    Ok(())
}

/// Leaves the mark of a clean stop where everything is whole.
fn mark_clean(dirs: &[LogDir], mut unclean: BTreeSet<PathBuf>, disks: &LogDirs) {
    for dir in dirs {
        if disks.health(&dir.path) == Health::Offline {
            unclean.insert(dir.path.clone());
        }
        if !unclean.contains(&dir.path)
            && let Err(e) = format::mark_clean(std::slice::from_ref(dir))
        {
            warn!("{e}");
            unclean.insert(dir.path.clone());
        }
    }
    match unclean.is_empty() {
        true => info!("stopped cleanly"),
        false => warn!("stopped; the next start looks through the logs in {}", names(&unclean)),
    }
}

/// What a node needs before it runs.
struct Prepared {
    opened: Opened,
    bound: Vec<BoundShard>,
    inventory: Inventory,
    store: EmbeddedStore,
    disks: Arc<LogDirs>,
    reserves: Reserves,
    store_dir: PathBuf,
}

/// Everything that can fail, what changes the disk last: a start that fails leaves no new directories behind, and does
/// not make the next one scan the logs.
fn prepare(config: &BrokerConfig, options: &ServeOptions, cores: usize) -> anyhow::Result<Prepared> {
    let wanted = Wanted {
        node_id: config.node_id,
        shards: options.shards.or(config.shards),
        shards_default: cores.min(SHARDS_PER_NODE as usize) as u16,
        forget: options.forget_dirs.clone(),
    };
    let mut survey = format::survey(&config.log_dirs, &wanted)?;
    config.listeners.check_shards(survey.shards())?;
    let bound = bind_all(config, survey.node_id(), survey.shards())?;
    let inventory = inventory::take(&survey.dirs())?;
    for (path, why) in &inventory.unreadable {
        survey.lose(path, why.clone())?;
    }
    let store_file = inventory.store_file(&survey.offline())?;
    let open_store = || EmbeddedStore::open(&store_file).context("opening the embedded store");
    // One that is there is opened while nothing is formatted yet; a new one needs its directory.
    let store = store_file.exists().then(open_store).transpose()?;
    for dir in survey.dirs().iter().filter(|dir| dir.was_clean && !dir.is_new) {
        match journal::file::set_aside_outdated(&dir.path) {
            Ok(kept) => kept.iter().for_each(|kept| {
                warn!("{}: not used: the directory was used without it since, and stopped cleanly", kept.display());
            }),
            Err(e) => survey.lose(&dir.path, e.to_string())?,
        }
    }
    let paths = survey.paths();
    let opened = survey.open()?;
    let is_opened = |dir: &FoundLogDir| opened.dirs.iter().any(|opened| opened.path == dir.path);
    let inventory = Inventory { dirs: inventory.dirs.into_iter().filter(is_opened).collect(), ..inventory };
    let disks = Arc::new(LogDirs::new(paths.into_iter().map(|path| {
        let offline = opened.offline.iter().find(|(offline, _)| *offline == path);
        let why = offline.map(|(_, why)| why.clone());
        (path, why)
    })));
    let store_dir = store_file.parent().context("the store lies in a directory")?.to_owned();
    if let Some(why) = disks.failure(&store_dir) {
        bail!("{} holds the node's topics and cannot be used: {why}", store_dir.display());
    }
    let reserves = Reserves::make(&disks, config.journal_bytes.unwrap_or(0) * u64::from(opened.shards));
    let store = store.map_or_else(open_store, Ok)?;
    Ok(Prepared { opened, bound, inventory, store, disks, reserves, store_dir })
}

fn load(options: &ServeOptions) -> anyhow::Result<BrokerConfig> {
    let from_file = options.config.as_deref().map(file::read_file).transpose()?.unwrap_or_default();
    let mut given: Vec<Given> = Vec::new();
    for (name, value) in &options.set {
        given.push(file::parse_set(&format!("{name}={value}"))?);
    }
    let loaded = file::load(from_file, given)?;
    for warning in &loaded.warnings {
        warn!("{warning}");
    }
    Ok(loaded.broker)
}

fn say_what_was_found(config: &BrokerConfig, opened: &Opened, cores: &[usize]) {
    // Only now do the directories exist, so that their file systems can be told.
    let probe = Probe::new(opened.dirs.iter().map(|dir| dir.path.clone()));
    for line in probe.findings(cores) {
        info!("{line}");
    }
    let journals = usize::from(opened.shards) * config.log_dirs.len();
    let ring_bytes = config.journal_bytes.filter(|_| config.flush_policy == FlushPolicy::Disk).unwrap_or(0);
    for line in probe.advice(ring_bytes.saturating_mul(journals as u64)) {
        warn!("{line}");
    }
    info!("{}", probe::opened_line(opened));
    for (path, why) in &opened.offline {
        error!("log directory {} is offline: {why}", path.display());
    }
    let promise = match config.flush_policy {
        FlushPolicy::Disk => "acks=all is answered when the record is on disk (log.flush.policy=disk)",
        FlushPolicy::Os => "acks=all is answered when the record is in the page cache (log.flush.policy=os)",
    };
    info!("{promise}");
}

/// Binds every port of every shard before any of them serves.
fn bind_all(config: &BrokerConfig, node: NodeId, shards: u16) -> anyhow::Result<Vec<BoundShard>> {
    let settings = SocketSettings {
        backlog: i32::try_from(config.socket_listen_backlog_size).unwrap_or(i32::MAX),
        send_buffer_bytes: config.socket_send_buffer_bytes.map(|bytes| bytes as usize),
        receive_buffer_bytes: config.socket_receive_buffer_bytes.map(|bytes| bytes as usize),
    };
    let mut bound = Vec::new();
    for shard in 0..shards {
        let endpoints: Vec<_> = config.listeners.bound_by(shard).collect();
        let [endpoint] = endpoints.as_slice() else {
            bail!("listeners: more than one listener is not built yet; name one");
        };
        let listener = bind(endpoint.host.as_deref().unwrap_or(""), endpoint.port, &settings)?;
        let port = listener.local_addr()?.port();
        let advertised = config.listeners.advertised_by(&endpoint.name, shard);
        let broker = Broker {
            id: BrokerId::new(node, ShardId(shard)),
            host: advertised.as_ref().and_then(|endpoint| endpoint.host.clone()),
            port: advertised.map_or(port, |endpoint| endpoint.port),
            rack: config.rack.clone(),
        };
        bound.push((vec![listener], broker));
    }
    Ok(bound)
}

/// How a shard's share of the descriptors is split.
struct Budget {
    segments: usize,
    connections: usize,
}

impl Budget {
    fn new(open_files: u64, shards: u16) -> Budget {
        let all = usize::try_from(open_files).unwrap_or(usize::MAX).saturating_sub(DESCRIPTORS_RESERVED);
        let each = (all / usize::from(shards.max(1))).max(64);
        // Segments are closed and opened again at need; connections cannot be.
        Budget { segments: each / 2, connections: each / 2 }
    }
}

fn net_settings(config: &BrokerConfig, connections: usize) -> NetSettings {
    for (host, _) in &config.max_connections_per_ip_overrides {
        if host.parse::<IpAddr>().is_err() {
            warn!("max.connections.per.ip.overrides: {host} is not an IP address and has no effect");
        }
    }
    NetSettings {
        request_bytes_max: config.socket_request_max_bytes as usize,
        idle_max: config.connections_max_idle_ms.map(Duration::from_millis),
        limits: ConnectionLimits::of(config),
        connections_possible: connections,
        file_sender: FileSender::Auto,
        ..NetSettings::default()
    }
}

/// Runs the control plane until a signal comes, then stops everything; an error if it ended by itself.
async fn run_until_signal<C, E>(
    control: impl FnOnce(oneshot::Sender<Arc<ClusterImage>>, oneshot::Receiver<()>) -> anyhow::Result<C>,
    brokers: &[Broker],
    stop: watch::Sender<bool>,
    lost_all: impl Future<Output = anyhow::Error>,
) -> anyhow::Result<()>
where
    C: Future<Output = Result<(), E>> + 'static,
    E: std::error::Error + Send + Sync + 'static,
{
    // Dropped at the end of this function, by which shards stop however it ends.
    let stop = StopAtEnd(stop);
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let started = Instant::now();
    let (ready, mut is_ready) = oneshot::channel();
    let (end_control, shutdown) = oneshot::channel();
    let mut control = tokio::task::spawn_local(control(ready, shutdown)?);
    let mut announced = false;
    let mut lost_all = std::pin::pin!(lost_all);
    let name = loop {
        tokio::select! {
            ended = &mut control => {
                return Err(match ended {
                    Ok(Ok(())) => anyhow::anyhow!("the control plane ended by itself"),
                    Ok(Err(e)) => anyhow::Error::new(e).context("the control plane failed"),
                    Err(e) => anyhow::Error::new(e).context("the control plane panicked"),
                });
            }
            image = &mut is_ready, if !announced => {
                announced = true;
                if let Ok(image) = image {
                    say_ready(brokers, image.topics.len(), started.elapsed());
                }
            }
            reason = &mut lost_all => return Err(reason),
            _ = terminate.recv() => break "SIGTERM",
            _ = interrupt.recv() => break "SIGINT",
        }
    };
    info!("{name}: stopping");
    tell_manager("STOPPING=1");
    // It ends after the command in hand, which needs the shards; one that comes later is answered NOT_CONTROLLER.
    let _ = end_control.send(());
    let ended = control.await;
    drop(stop);
    ended.context("the control plane panicked")?.context("the control plane failed")
}

/// Tells the shards to stop when it is dropped.
struct StopAtEnd(watch::Sender<bool>);

impl Drop for StopAtEnd {
    fn drop(&mut self) {
        // Shards that have ended already need not hear it.
        let _ = self.0.send(true);
    }
}

fn say_ready(brokers: &[Broker], topics: usize, after: Duration) {
    let Some(first) = brokers.first() else { return };
    let host = first.host.as_deref().unwrap_or("localhost");
    info!(
        "ready after {} ms: {}, for clients on {}, {}",
        after.as_millis(),
        count(brokers.len(), "broker"),
        ports(&brokers.iter().map(|broker| broker.port).collect::<Vec<_>>()),
        count(topics, "topic")
    );
    let mut text = format!("corelog is ready on {host}:{}. What to do next:\n", first.port);
    for line in probe::next_steps(host, first.port) {
        text.push_str(&format!("  {line}\n"));
    }
    text.push_str("  stop     Ctrl-C\n");
    // Nobody may be reading: that is no reason to stop.
    let _ = io::stdout().write_all(text.as_bytes());
    tell_manager("READY=1");
}

/// A service manager that does not listen is no reason to stop, either.
fn tell_manager(state: &str) {
    if let Err(error) = notify(state) {
        warn!("the service manager was not told {state}: {error}");
    }
}

/// `port 9092`, `ports 9092-9095`, or a list where they do not go up by one.
fn ports(ports: &[u16]) -> String {
    match ports {
        [one] => format!("port {one}"),
        [first, .., last] if ports.windows(2).all(|pair| pair[0].checked_add(1) == Some(pair[1])) => {
            format!("ports {first}-{last}")
        }
        _ => format!("ports {}", ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")),
    }
}

/// Nothing is left to serve from (Kafka: "Shutdown broker because all log dirs have failed").
async fn lost_all(disks: &LogDirs) -> anyhow::Error {
    let mut changes = disks.subscribe();
    while !disks.all_offline() && changes.changed().await.is_ok() {}
    let why = |path: &Path| format!("{}: {}", path.display(), disks.failure(path).unwrap_or_default());
    let all: Vec<_> = disks.all().map(|(path, _)| why(path)).collect();
    anyhow::anyhow!("all log directories are offline: {}", all.join("; "))
}

/// The control plane. When the disk of its store fails, records in the other log directories are still served: topics and settings stay as
/// they are, and who wants to change them is told that there is no controller.
async fn unless_its_disk_failed(
    control: impl Future<Output = Result<(), ControlError>>,
    (mut shutdown, end): (oneshot::Receiver<()>, oneshot::Sender<()>),
    (store_dir, disks): (PathBuf, Arc<LogDirs>),
    patience: Duration,
) -> Result<(), ControlError> {
    let mut control = std::pin::pin!(control);
    let (ended, is_over) = tokio::select! {
        ended = &mut control => (ended, false),
        _ = &mut shutdown => {
            // Only a control plane that has ended does not hear it.
            let _ = end.send(());
            let Ok(ended) = tokio::time::timeout(patience, &mut control).await else {
                warn!("{}: the node's store does not answer: its last change may be lost", store_dir.display());
                return Ok(());
            };
            (ended, true)
        }
    };
    match ended {
        Err(
            ControlError::Store(StoreError::Failed(reason))
            | ControlError::Multi(MultiError { error: StoreError::Failed(reason), .. }),
        ) => {
            disks.take_offline(&store_dir, &format!("the node's topics can no longer be changed: {reason}"));
            if !is_over {
                let _ = shutdown.await;
            }
            Ok(())
        }
        ended => ended,
    }
}

/// Waits for all shards; gives the log directories in which something is not whole. A shard whose disk does not answer is left behind.
async fn join(
    threads: Vec<ShardThread<()>>,
    outcomes: std::sync::mpsc::Receiver<Ended>,
) -> anyhow::Result<BTreeSet<PathBuf>> {
    let join = move || {
        let (mut unclean, mut is_stuck) = (BTreeSet::new(), false);
        for _ in &threads {
            let ended = outcomes.recv().context("a shard ended without a word")?;
            unclean.extend(ended.unclean.context("a shard failed")?);
            is_stuck |= ended.is_stuck;
        }
        if !is_stuck {
            threads.into_iter().try_for_each(ShardThread::join)?;
        }
        Ok(unclean)
    };
    tokio::task::spawn_blocking(join).await.context("waiting for the shards")?
}

/// Every shard has had its answer; one that is left behind may keep the writer waiting for more.
async fn end_of(checkpoint_writer: tokio::task::JoinHandle<()>) -> anyhow::Result<()> {
    match tokio::time::timeout(CHECKPOINT_WRITER_PATIENCE, checkpoint_writer).await {
        Ok(ended) => ended.context("the checkpoint writer"),
        Err(_) => Ok(()),
    }
}

fn names(dirs: &BTreeSet<PathBuf>) -> String {
    dirs.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Signal, getpid, kill_process};

    #[test]
    fn ports_are_listed_where_they_do_not_go_up_by_one() {
        assert_eq!(ports(&[19092]), "port 19092");
        assert_eq!(ports(&[9092, 9093, 9094]), "ports 9092-9094");
        assert_eq!(ports(&[30001, 30417]), "ports 30001, 30417");
    }

    /// The disk of the store hung: the stop waited for its last command for ever.
    #[test]
    fn a_store_that_does_not_answer_lets_the_node_stop() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let dir = PathBuf::from("/store");
        let disks = Arc::new(LogDirs::new([(dir.clone(), None)]));
        let (stop, shutdown) = oneshot::channel();
        let (end, _told) = oneshot::channel();
        stop.send(()).expect("somebody listens");
        let patience = Duration::from_millis(50);
        let hung = std::future::pending();
        let ended = unless_its_disk_failed(hung, (shutdown, end), (dir.clone(), Arc::clone(&disks)), patience);
        runtime.block_on(ended).expect("it ends");
        assert_eq!(disks.health(&dir), Health::Sound, "nothing says that it failed");
    }

    /// A topic is being created when the signal comes: its image must still reach the shards, or the control plane fails
    /// for the shards that it lacks, and an orderly stop is none.
    #[test]
    fn shards_are_stopped_after_the_command_in_hand() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let outcome = tokio::task::LocalSet::new().block_on(&runtime, async {
            let (stop, stopped) = watch::channel(false);
            let in_hand = stopped.clone();
            let control = |ready, shutdown: oneshot::Receiver<()>| {
                Ok(async move {
                    drop(ready);
                    kill_process(getpid(), Signal::TERM).expect("our own process");
                    shutdown.await.map_err(io::Error::other)?;
                    let gone = *in_hand.borrow();
                    if gone { Err(io::Error::other("a shard has ended")) } else { Ok(()) }
                })
            };
            run_until_signal(control, &[], stop, std::future::pending()).await.map(|()| *stopped.borrow())
        });
        assert!(outcome.expect("an orderly stop"), "they are stopped then");
    }
}
