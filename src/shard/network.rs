//! What all connections of a shard share: settings, counters, memory, pipes, the registry of who is connected.
//!
//! One sweeper per shard closes idle connections: it sleeps until the first of them can have become idle, so that it
//! costs nothing per request and next to nothing when nothing happens.

use super::breather::Breather;
use super::connection::{Connection, ConnectionMeta, Service};
use super::pipes::PipePool;
use super::receive::ReceivePool;
use super::sender::FileSender;
use crate::base::config::BrokerConfig;
use crate::base::metrics::ShardMetrics;
use slab::Slab;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// What an operator may set, per shard: each shard is a broker of its own.
#[derive(Clone, Debug)]
pub struct NetSettings {
    /// `socket.request.max.bytes`.
    pub request_bytes_max: usize,
    /// `connections.max.idle.ms`; None: never (Kafka: a negative value).
    pub idle_max: Option<Duration>,
    /// What holds until `Network::set_limits`.
    pub limits: ConnectionLimits,
    /// What the shard has descriptors for, whatever the limits allow.
    pub connections_possible: usize,
    /// Bytes of requests that the shard holds in all.
    pub receive_bytes_max: usize,
    /// Pipes for splice, 1 MiB each.
    pub pipes_max: usize,
    pub file_sender: FileSender,
}

impl Default for NetSettings {
    /// Kafka's defaults, and our bounds.
    fn default() -> Self {
        NetSettings {
            request_bytes_max: 104_857_600,
            idle_max: Some(Duration::from_secs(600)),
            limits: ConnectionLimits::default(),
            connections_possible: usize::MAX,
            receive_bytes_max: crate::base::limits::SHARD_RECEIVE_BYTES_MAX,
            pipes_max: crate::base::limits::SHARD_PIPES_MAX,
            file_sender: FileSender::Auto,
        }
    }
}

/// How many connections a shard takes. These settings can be altered while it runs.
#[derive(Clone, Debug)]
pub struct ConnectionLimits {
    /// `max.connections`: beyond it, new connections wait in the listen backlog, as in Kafka.
    pub total: usize,
    /// `max.connections.per.ip`: beyond it, a new connection is closed at once, as in Kafka.
    pub per_ip: usize,
    /// `max.connections.per.ip.overrides`; those that are not an IP address are left out.
    pub per_ip_overrides: HashMap<IpAddr, usize>,
}

impl Default for ConnectionLimits {
    /// Kafka's defaults.
    fn default() -> Self {
        ConnectionLimits { total: i32::MAX as usize, per_ip: i32::MAX as usize, per_ip_overrides: HashMap::new() }
    }
}

impl ConnectionLimits {
    pub fn of(config: &BrokerConfig) -> Self {
        let overrides = config.max_connections_per_ip_overrides.iter();
        ConnectionLimits {
            total: config.max_connections as usize,
            per_ip: config.max_connections_per_ip as usize,
            per_ip_overrides: overrides.filter_map(|(host, max)| Some((host.parse().ok()?, *max as usize))).collect(),
        }
    }
}

/// Why the shard itself ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doom {
    Idle,
    Stalled,
    Deadline,
}

impl fmt::Display for Doom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Doom::Idle => "idle for longer than connections.max.idle.ms",
            Doom::Stalled => {
                "it held memory too long, with a slow request or an unread answer, while others waited for memory"
            }
            Doom::Deadline => "still unanswered at the shutdown deadline",
        })
    }
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Connections whose requests were all answered.
    pub completed: usize,
    /// Connections that were cut at the deadline.
    pub cut: usize,
}

/// The sweeper looks at all connections at most this often.
const SWEEP_MIN: Duration = Duration::from_millis(20);
const SWEEP_MAX: Duration = Duration::from_secs(5);
/// While others wait for memory, who holds some for this long with a slow frame or an unread answer gives way.
const STALL_MAX: Duration = Duration::from_secs(30);
const CONTENDED_SWEEP: Duration = Duration::from_secs(1);
/// A pause that only a notification ends.
const FOREVER: Duration = Duration::from_secs(86_400 * 365);

/// A shard's sockets. Lives on the shard's thread.
pub struct Network {
    pub(super) settings: NetSettings,
    limits: RefCell<ConnectionLimits>,
    pub(super) service: Rc<dyn Service>,
    pub(super) metrics: Arc<ShardMetrics>,
    pub(super) receive: ReceivePool,
    pub(super) pipes: PipePool,
    pub(super) breather: Rc<Breather>,
    members: RefCell<Slab<Rc<Member>>>,
    per_ip: RefCell<HashMap<IpAddr, usize, foldhash::fast::RandomState>>,
    next_id: Cell<u64>,
    draining: Cell<bool>,
    /// A connection has gone, or the limits are others.
    pub(super) changed: Notify,
    /// There is something to sweep.
    sweep: Notify,
    acceptors: RefCell<Vec<JoinHandle<()>>>,
    helpers: RefCell<Vec<JoinHandle<()>>>,
}

/// What the registry knows of one connection.
struct Member {
    last_activity: Cell<Instant>,
    /// Since when a frame that takes a share of the budget has been arriving.
    arriving_since: Cell<Option<Instant>>,
    /// The socket takes no more of what is to be sent.
    blocked: Cell<bool>,
    doom: Cell<Option<Doom>>,
    waker: RefCell<Option<Waker>>,
    ip: IpAddr,
}

/// A connection's place in the registry; it leaves when this is dropped.
pub(super) struct Registration {
    network: Rc<Network>,
    member: Rc<Member>,
    key: usize,
}

impl Network {
    /// Must be called within the shard's runtime.
    pub fn new(settings: NetSettings, service: Rc<dyn Service>, metrics: Arc<ShardMetrics>) -> io::Result<Rc<Network>> {
        let network = Rc::new(Network {
            receive: ReceivePool::new(settings.receive_bytes_max),
            pipes: PipePool::new(settings.pipes_max),
            limits: RefCell::new(settings.limits.clone()),
            settings,
            service,
            metrics,
            breather: Breather::new()?,
            members: RefCell::default(),
            per_ip: RefCell::default(),
            next_id: Cell::new(0),
            draining: Cell::new(false),
            changed: Notify::new(),
            sweep: Notify::new(),
            acceptors: RefCell::default(),
            helpers: RefCell::default(),
        });
        let breather = tokio::task::spawn_local(Rc::clone(&network.breather).run());
        let sweeper = tokio::task::spawn_local(Rc::clone(&network).run_sweeper());
        network.helpers.borrow_mut().extend([breather, sweeper]);
        Ok(network)
    }

    /// Accepts connections of `listener` (see `listener::bind`) until the drain.
    pub fn serve(self: &Rc<Self>, listener: std::net::TcpListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let acceptor = tokio::task::spawn_local(super::listener::accept_loop(Rc::clone(self), listener));
        self.acceptors.borrow_mut().push(acceptor);
        Ok(())
    }

    /// Connections beyond new limits stay; no further ones are taken.
    pub fn set_limits(&self, limits: ConnectionLimits) {
        self.limits.replace(limits);
        // Who waits to accept looks again.
        self.changed.notify_waiters();
    }

    pub fn metrics(&self) -> &ShardMetrics {
        &self.metrics
    }

    /// Gives way to all other tasks and to the I/O drivers (see `breather`).
    pub fn breather(&self) -> &Rc<Breather> {
        &self.breather
    }

    /// Bytes of requests that are received and not answered.
    pub fn receive_bytes(&self) -> usize {
        self.receive.budget.used()
    }

    pub fn pipes(&self) -> usize {
        self.pipes.created()
    }

    pub fn connections(&self) -> usize {
        self.members.borrow().len()
    }

    /// Stops accepting and reading, lets requests in flight be answered until `deadline` has passed, then cuts the
    /// rest. Returns when no connection is left.
    pub async fn drain(&self, deadline: Duration) -> Drained {
        self.draining.set(true);
        end_all(self.acceptors.take()).await;
        let begun = self.connections();
        self.wake_all(None);
        let in_time = tokio::time::timeout(deadline, self.wait_empty()).await.is_ok();
        let cut = if in_time { 0 } else { self.connections() };
        self.wake_all(Some(Doom::Deadline));
        self.wait_empty().await;
        end_all(self.helpers.take()).await;
        Drained { completed: begun.saturating_sub(cut), cut }
    }

    /// Whether another connection would be one too many.
    pub(super) fn is_full(&self) -> bool {
        self.connections() >= self.limits.borrow().total.min(self.settings.connections_possible)
    }

    /// Takes over an accepted socket, if its address may have another connection.
    pub(super) fn adopt(self: &Rc<Self>, stream: TcpStream, peer_addr: SocketAddr) {
        let peer_addr = canonical(peer_addr);
        let ip = peer_addr.ip();
        let max = {
            let limits = self.limits.borrow();
            limits.per_ip_overrides.get(&ip).copied().unwrap_or(limits.per_ip)
        };
        let count = self.per_ip.borrow().get(&ip).copied().unwrap_or(0);
        if count >= max {
            self.metrics.connections_refused.add(1);
            tracing::info!(%ip, max, "connection refused: the address has as many as max.connections.per.ip allows");
            return;
        }
        let Ok(local_addr) = stream.local_addr() else { return };
        *self.per_ip.borrow_mut().entry(ip).or_insert(0) += 1;
        let id = self.next_id.replace(self.next_id.get() + 1);
        let meta = ConnectionMeta { id, local_addr: canonical(local_addr), peer_addr };
        let connection = Connection::new(Rc::clone(self), self.register(ip), meta, stream);
        tokio::task::spawn_local(connection.run());
    }

    fn register(self: &Rc<Self>, ip: IpAddr) -> Registration {
        let member = Rc::new(Member {
            last_activity: Cell::new(Instant::now()),
            arriving_since: Cell::new(None),
            blocked: Cell::new(false),
            doom: Cell::new(None),
            waker: RefCell::new(None),
            ip,
        });
        let key = self.members.borrow_mut().insert(Rc::clone(&member));
        self.metrics.connections_accepted.add(1);
        self.metrics.connections.set(self.connections() as u64);
        if self.connections() == 1 {
            self.sweep.notify_one();
        }
        Registration { network: Rc::clone(self), member, key }
    }

    async fn wait_empty(&self) {
        while self.connections() > 0 {
            self.changed.notified().await;
        }
    }

    fn wake_all(&self, doom: Option<Doom>) {
        for (_, member) in self.members.borrow().iter() {
            member.wake(doom);
        }
    }

    /// The connection `id` waits for receive memory: it is woken when there is some.
    pub(super) fn wait_for_memory(&self, id: u64, waker: &Waker) {
        let budget = &self.receive.budget;
        if !budget.is_contended() {
            self.sweep.notify_one();
        }
        budget.wake_later(id, waker);
    }

    async fn run_sweeper(self: Rc<Self>) {
        loop {
            let pause = self.sweep_once(Instant::now());
            let _ = tokio::time::timeout(pause, self.sweep.notified()).await;
        }
    }

    /// Dooms whoever is idle, or stalls while memory is short. Returns how long nobody else can become so.
    fn sweep_once(&self, now: Instant) -> Duration {
        let idle_max = self.settings.idle_max.unwrap_or(FOREVER);
        let contended = self.receive.budget.is_contended();
        let mut longest = Duration::ZERO;
        for (_, member) in self.members.borrow().iter() {
            if member.doom.get().is_some() {
                continue;
            }
            let idle = now.saturating_duration_since(member.last_activity.get());
            longest = longest.max(idle.min(idle_max));
            let arriving =
                member.arriving_since.get().map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
            let stalled = arriving > STALL_MAX || (member.blocked.get() && idle > STALL_MAX);
            if idle > idle_max {
                self.metrics.connections_idle_closed.add(1);
                member.wake(Some(Doom::Idle));
            } else if contended && stalled {
                self.metrics.connections_stalled_closed.add(1);
                member.wake(Some(Doom::Stalled));
            }
        }
        let coarse = (idle_max / 64).clamp(SWEEP_MIN, SWEEP_MAX);
        let pause = (idle_max - longest).max(coarse);
        match self.connections() {
            0 => FOREVER,
            _ if contended => pause.min(CONTENDED_SWEEP),
            _ => pause,
        }
    }
}

/// Aborts tasks and waits until they are gone, with what they own (a listener's port).
async fn end_all(tasks: Vec<JoinHandle<()>>) {
    for task in tasks {
        task.abort();
        let _ = task.await;
    }
}

impl Member {
    fn wake(&self, doom: Option<Doom>) {
        if let Some(doom) = doom {
            self.doom.set(Some(doom));
        }
        if let Some(waker) = self.waker.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }
}

impl Registration {
    /// Remembers the task; says whether it has been doomed.
    #[inline]
    pub(super) fn attend(&self, waker: &Waker) -> Option<Doom> {
        let mut known = self.member.waker.borrow_mut();
        if !known.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *known = Some(waker.clone());
        }
        self.member.doom.get()
    }

    /// Bytes have moved: the connection is not idle.
    #[inline]
    pub(super) fn touch(&self) {
        self.member.last_activity.set(Instant::now());
    }

    /// A frame that takes a share of the budget is arriving, or no longer is.
    pub(super) fn set_arriving(&self, arriving: bool) {
        let since = self.member.arriving_since.get();
        self.member.arriving_since.set(if arriving { since.or_else(|| Some(Instant::now())) } else { None });
    }

    #[inline]
    pub(super) fn set_blocked(&self, blocked: bool) {
        self.member.blocked.set(blocked);
    }

    #[inline]
    pub(super) fn is_draining(&self) -> bool {
        self.network.draining.get()
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let network = &self.network;
        network.members.borrow_mut().remove(self.key);
        network.metrics.connections.set(network.connections() as u64);
        let mut per_ip = network.per_ip.borrow_mut();
        if let Some(count) = per_ip.get_mut(&self.member.ip) {
            *count -= 1;
            if *count == 0 {
                per_ip.remove(&self.member.ip);
            }
        }
        network.changed.notify_waiters();
    }
}

/// An IPv4 peer of a dual-stack socket under its IPv4 address.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
