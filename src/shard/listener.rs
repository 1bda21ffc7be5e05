//! Listening sockets: how they are bound, and the loop that accepts from one.

use super::network::Network;
use socket2::{Domain, Protocol, Socket, Type};
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How a listening socket is set up; accepted sockets inherit all of it on Linux.
#[derive(Clone, Copy, Debug)]
pub struct SocketSettings {
    /// `socket.listen.backlog.size`; the kernel caps it at net.core.somaxconn.
    pub backlog: i32,
    /// `socket.send.buffer.bytes`; None (-1) leaves it to the kernel's autotuning.
    pub send_buffer_bytes: Option<usize>,
    /// `socket.receive.buffer.bytes`; None (-1) leaves it to the kernel's autotuning.
    pub receive_buffer_bytes: Option<usize>,
}

impl Default for SocketSettings {
    fn default() -> Self {
        SocketSettings { backlog: 50, send_buffer_bytes: None, receive_buffer_bytes: None }
    }
}

/// Why a port cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("listeners: the host name {host:?} has no address: {source}")]
    Resolve { host: String, source: io::Error },
    #[error(
        "port {port} on {host} is taken by another process (see `ss -ltnp 'sport = :{port}'`); stop that one, or choose \
         other ports with --set listeners=PLAINTEXT://:19092 (shard s adds s)"
    )]
    Taken { host: String, port: u16 },
    #[error("cannot listen on port {port} of {host}: {source}")]
    Bind { host: String, port: u16, source: io::Error },
}

/// The kernel may need a moment to free the port of a process that was killed.
const TAKEN_RETRY_MAX: Duration = Duration::from_millis(1500);
/// Whoever waits longer than this is told for what.
const TAKEN_TOLD_AFTER: Duration = Duration::from_millis(500);
/// Accepting pauses for so long where the system has no descriptors or memory left.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);
/// Connections turned away in a row before such a pause.
const TURNED_AWAY_MAX: usize = 64;

/// Binds and listens, nonblocking. An empty host means every address, IPv6 and IPv4 on one socket (IPv4 alone where
/// IPv6 is off); port 0 takes a free one. Called before shards start, so that all ports are ours before any is ready.
pub fn bind(host: &str, port: u16, settings: &SocketSettings) -> Result<TcpListener, BindError> {
    let candidates = addresses(host, port)?;
    let shown = if host.is_empty() { "all addresses" } else { host };
    let give_up = Instant::now() + TAKEN_RETRY_MAX;
    let mut told = false;
    loop {
        let error = match bind_first(&candidates, settings) {
            Ok(listener) => return Ok(listener),
            Err(error) => error,
        };
        if error.kind() != io::ErrorKind::AddrInUse {
            return Err(BindError::Bind { host: shown.to_owned(), port, source: error });
        }
        if Instant::now() >= give_up {
            return Err(BindError::Taken { host: shown.to_owned(), port });
        }
        if !told && Instant::now() + (TAKEN_RETRY_MAX - TAKEN_TOLD_AFTER) >= give_up {
            told = true;
            tracing::info!("port {port} on {shown} is taken; waiting whether it becomes free");
        }
        std::thread::sleep(Duration::from_millis(25));
    }
}

/// Accepts until the task is aborted. A connection beyond `max.connections` stays in the backlog until another ends.
pub(super) async fn accept_loop(network: Rc<Network>, listener: tokio::net::TcpListener) {
    let mut reserve = Reserve::new();
    let mut turned_away = 0;
    loop {
        while network.is_full() {
            network.changed.notified().await;
        }
        match listener.accept().await {
            Ok((stream, peer)) => {
                turned_away = 0;
                network.adopt(stream, peer);
            }
            Err(error) if is_exhausted(&error) => {
                let freed = matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE));
                if freed && turned_away < TURNED_AWAY_MAX && reserve.turn_away(&listener) {
                    turned_away += 1;
                    network.metrics.connections_refused.add(1);
                    continue;
                }
                tracing::warn!(%error, turned_away, "cannot accept connections: raise LimitNOFILE, or lower max.connections");
                turned_away = 0;
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
            }
            // The peer has gone before it was accepted, or its network has: the next one is another matter.
            Err(error) => tracing::debug!(%error, "a connection could not be accepted"),
        }
    }
}

/// A descriptor held back so that, when none is left, a connection can still be accepted and closed: otherwise its
/// client would wait for an answer that cannot come.
struct Reserve(Option<File>);

impl Reserve {
    fn new() -> Reserve {
        Reserve(File::open("/dev/null").ok())
    }

    /// Whether one waiting connection was closed.
    fn turn_away(&mut self, listener: &tokio::net::TcpListener) -> bool {
        if self.0.take().is_none() {
            self.0 = File::open("/dev/null").ok();
            return false;
        }
        let accepted = rustix::net::accept_with(listener, rustix::net::SocketFlags::CLOEXEC);
        let closed = accepted.map(drop).is_ok();
        self.0 = File::open("/dev/null").ok();
        closed
    }
}

fn is_exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::ENOSPC))
}

fn addresses(host: &str, port: u16) -> Result<Vec<SocketAddr>, BindError> {
    if host.is_empty() {
        let any = [IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::UNSPECIFIED)];
        return Ok(any.map(|ip| SocketAddr::new(ip, port)).to_vec());
    }
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    let refused = |source| BindError::Resolve { host: host.to_owned(), source };
    let found: Vec<SocketAddr> = (bare, port).to_socket_addrs().map_err(refused)?.collect();
    if found.is_empty() {
        return Err(refused(io::Error::from(io::ErrorKind::NotFound)));
    }
    Ok(found)
}

/// The first address that this machine can bind; a port that is taken ends the search.
fn bind_first(candidates: &[SocketAddr], settings: &SocketSettings) -> io::Result<TcpListener> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in candidates {
        match bind_one(*address, settings) {
            Ok(listener) => return Ok(listener),
            Err(error) if is_family_missing(&error) => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

fn is_family_missing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL | libc::EPROTONOSUPPORT))
}

fn bind_one(address: SocketAddr, settings: &SocketSettings) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_keepalive(true)?;
    if let Some(bytes) = settings.send_buffer_bytes {
        socket.set_send_buffer_size(bytes)?;
    }
    if let Some(bytes) = settings.receive_buffer_bytes {
        socket.set_recv_buffer_size(bytes)?;
    }
    socket.bind(&address.into())?;
    socket.listen(settings.backlog.max(1))?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    #[test]
    fn an_empty_host_takes_both_families_on_one_socket() {
        let listener = bind("", 0, &SocketSettings::default()).expect("bound");
        let port = listener.local_addr().expect("address").port();
        TcpStream::connect(("127.0.0.1", port)).expect("IPv4");
        if listener.local_addr().expect("address").is_ipv6() {
            TcpStream::connect(("::1", port)).expect("IPv6");
        }
    }

    #[test]
    fn a_taken_port_is_named() {
        let holder = bind("127.0.0.1", 0, &SocketSettings::default()).expect("bound");
        let port = holder.local_addr().expect("address").port();
        let error = bind("127.0.0.1", port, &SocketSettings::default()).expect_err("taken").to_string();
        assert!(error.contains(&format!("port {port} on 127.0.0.1 is taken")), "{error}");
        // The same port on all addresses is a conflict too, not a reason to fall back to IPv4.
        assert!(matches!(bind("", port, &SocketSettings::default()), Err(BindError::Taken { .. })));
    }

    #[test]
    fn a_port_just_released_is_bound_again_though_connections_linger() {
        let settings = SocketSettings::default();
        let listener = bind("127.0.0.1", 0, &settings).expect("bound");
        let address = listener.local_addr().expect("address");
        let _client = TcpStream::connect(address).expect("connected");
        drop(listener.accept().expect("accepted"));
        drop(listener);
        bind("127.0.0.1", address.port(), &settings).expect("bound again");
    }

    #[test]
    fn accepted_sockets_inherit_what_the_listener_was_given() {
        let settings = SocketSettings { send_buffer_bytes: Some(20_000), ..SocketSettings::default() };
        let listener = bind("[::1]", 0, &settings).or_else(|_| bind("127.0.0.1", 0, &settings)).expect("bound");
        let _client = TcpStream::connect(listener.local_addr().expect("address")).expect("connected");
        let (accepted, _) = loop {
            match listener.accept() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
                other => break other.expect("accepted"),
            }
        };
        let accepted = socket2::SockRef::from(&accepted);
        assert!(accepted.tcp_nodelay().expect("option") && accepted.keepalive().expect("option"));
        // The kernel doubles what is asked for, to leave room for its own bookkeeping.
        assert_eq!(accepted.send_buffer_size().expect("option"), 40_000);
    }

    #[test]
    fn a_host_without_an_address_is_named() {
        let error = bind("no.such.host.invalid", 0, &SocketSettings::default()).expect_err("refused").to_string();
        assert!(error.contains("no.such.host.invalid"), "{error}");
    }
}
