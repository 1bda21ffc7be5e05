//! How connections end: by the peer, by idleness, by the service, by a drain.

use super::*;

fn idle_after(milliseconds: u64) -> NetSettings {
    NetSettings { idle_max: Some(Duration::from_millis(milliseconds)), ..NetSettings::default() }
}

fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("linger");
    drop(stream);
}

#[test]
fn idle_connections_are_closed_and_busy_ones_are_not() {
    on_shard(async {
        let fixture = Fixture::start(idle_after(300));
        let mut silent = fixture.connect().await;
        let mut half = fixture.connect().await;
        send(&mut half, &request(ECHO, 1, b"torn")[..7]).await;
        let mut busy = fixture.connect().await;
        let begun = std::time::Instant::now();
        let chatter = tokio_uring::spawn(async move {
            for index in 0..20 {
                send(&mut busy, &request(ECHO, index, b"")).await;
                read_reply(&mut busy).await.expect("the busy one stays");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        assert_eq!(silent.read(&mut [0; 1]).await.expect("closed orderly"), 0);
        assert_eq!(half.read(&mut [0; 1]).await.expect("closed orderly"), 0);
        let waited = begun.elapsed();
        assert!(waited >= Duration::from_millis(280) && waited < Duration::from_millis(900), "{waited:?}");
        chatter.await.expect("busy");
        assert_eq!(fixture.network.metrics().connections_idle_closed.get(), 2);
    });
}

#[test]
fn slow_bytes_keep_a_connection_as_in_kafka() {
    on_shard(async {
        let fixture = Fixture::start(idle_after(200));
        let mut stream = fixture.connect().await;
        for byte in request(ECHO, 1, b"") {
            send(&mut stream, &[byte]).await;
            tokio::time::sleep(Duration::from_millis(60)).await;
        }
        read_reply(&mut stream).await.expect("900 ms for one frame, but never 200 ms without a byte");
    });
}

#[test]
fn a_peer_that_leaves_takes_its_waiting_requests_along() {
    on_shard(async {
        let fixture = Fixture::start(NetSettings::default());
        for by_reset in [false, true] {
            let dropped_before = fixture.service.dropped.get();
            let mut stream = fixture.connect().await;
            let requests: Vec<u8> = (0..5).flat_map(|index| request(GATE, index, b"")).collect();
            let seen = fixture.service.requests.get();
            send(&mut stream, &requests).await;
            fixture.until("they wait", |fixture| fixture.service.requests.get() == seen + 5).await;
            if by_reset {
                reset(stream)
            } else {
                drop(stream)
            }
            fixture.until("they are dropped", |fixture| fixture.service.dropped.get() == dropped_before + 5).await;
            fixture.until("it is gone", |fixture| fixture.network.connections() == 0).await;
            assert_eq!(fixture.network.receive_bytes(), 0);
        }
    });
}

#[test]
fn what_arrived_before_the_end_of_the_stream_is_done() {
    on_shard(async {
        let fixture = Fixture::start(NetSettings::default());
        let mut stream = fixture.connect().await;
        // As acks=0 producers do: send and close.
        let requests: Vec<u8> = (0..5000).flat_map(|index| request(NOTHING, index, &[1; 100])).collect();
        send(&mut stream, &requests).await;
        drop(stream);
        fixture.until("all are done", |fixture| fixture.service.requests.get() == 5000).await;
        fixture.until("it is gone", |fixture| fixture.network.connections() == 0).await;
    });
}

#[test]
fn a_peer_may_leave_in_any_state() {
    on_shard(async {
        let fixture = Fixture::start(NetSettings::default());
        let large = request(ECHO, 1, &pattern(3 << 20));
        for by_reset in [false, true] {
            // Nothing sent; half a length; half a frame; half a large frame; an answer unread; an answer half sent.
            let starts: [&[u8]; 6] = [
                b"",
                &[0, 0],
                &request(ECHO, 1, b"torn")[..9],
                &large[..1 << 20],
                &request(ECHO, 1, b"unread"),
                &request(BYTES, 50 << 20, b""),
            ];
            for start in starts {
                let mut stream = fixture.connect().await;
                send(&mut stream, start).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
                if by_reset {
                    reset(stream)
                } else {
                    drop(stream)
                }
                fixture.until("it is gone", |fixture| fixture.network.connections() == 0).await;
            }
        }
        assert_eq!(fixture.network.receive_bytes(), 0);
        let mut stream = fixture.connect().await;
        send(&mut stream, &request(ECHO, 1, b"still here")).await;
        assert_eq!(&read_reply(&mut stream).await.expect("reply")[11..], b"still here");
    });
}

#[test]
fn a_refused_request_closes_after_earlier_answers() {
    on_shard(async {
        let fixture = Fixture::start(NetSettings::default());
        let mut stream = fixture.connect().await;
        let mut requests = request(SLEEP, 30, b"first");
        requests.extend(request(CLOSE, 0, b""));
        requests.extend(request(ECHO, 0, b"never"));
        send(&mut stream, &requests).await;
        assert_eq!(&read_reply(&mut stream).await.expect("reply")[11..], b"first");
        assert!(read_reply(&mut stream).await.is_err());
        assert_eq!(fixture.service.requests.get(), 2, "what follows the refused request is not looked at");
    });
}

#[test]
fn a_drain_answers_what_is_in_flight_and_takes_nothing_new() {
    on_shard(async {
        let fixture = Fixture::start(NetSettings::default());
        let mut idle = fixture.connect().await;
        let mut waiting = fixture.connect().await;
        send(&mut waiting, &request(SLEEP, 150, b"in flight")).await;
        fixture.until("it waits", |fixture| fixture.service.requests.get() == 1).await;
        let begun = std::time::Instant::now();
        let network = Rc::clone(&fixture.network);
        let drain = tokio_uring::spawn(async move { network.drain(Duration::from_secs(10)).await });
        assert_eq!(idle.read(&mut [0; 1]).await.expect("closed"), 0);
        assert!(begun.elapsed() < Duration::from_millis(140), "who waits for nothing is let go at once");
        let _ = waiting.write_all(&request(ECHO, 1, b"too late")).await;
        assert_eq!(&read_reply(&mut waiting).await.expect("answered")[11..], b"in flight");
        assert!(read_reply(&mut waiting).await.is_err());
        let drained = drain.await.expect("drained");
        assert_eq!((drained.completed, drained.cut), (2, 0));
        assert_eq!(fixture.service.requests.get(), 1);
        assert!(TcpStream::connect(fixture.address).await.is_err(), "the port is closed");
    });
}

#[test]
fn a_drain_ends_at_its_deadline() {
    on_shard(async {
        let fixture = Fixture::start(NetSettings::default());
        let mut waiting = fixture.connect().await;
        send(&mut waiting, &request(GATE, 0, b"for ever")).await;
        fixture.until("it waits", |fixture| fixture.service.requests.get() == 1).await;
        let drained = fixture.network.drain(Duration::from_millis(100)).await;
        assert_eq!((drained.completed, drained.cut), (0, 1));
        assert_eq!(fixture.service.dropped.get(), 1);
        assert!(read_reply(&mut waiting).await.is_err());
        assert_eq!(Rc::strong_count(&fixture.network), 1, "no task is left that holds the network");
    });
}

/// Without a descriptor left, a connection is accepted and closed, so that its client learns of it. In a process of its
/// own, since the limit is the process's.
#[test]
fn who_comes_when_no_descriptor_is_left_is_turned_away() {
    use std::io::{BufRead, BufReader, Write};
    const CHILD: &str = "CORELOG_TEST_FEW_DESCRIPTORS";
    if std::env::var_os(CHILD).is_some() {
        on_shard(async {
            let sockets = listener::SocketSettings { backlog: 1024, ..Default::default() };
            let fixture = Fixture::start_with(NetSettings::default(), sockets);
            let limit = rustix::process::Rlimit { current: Some(40), maximum: Some(40) };
            rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).expect("lowered");
            println!("port {}", fixture.address.port());
            tokio::time::sleep(Duration::from_secs(50)).await;
        });
        return;
    }
    let name = "shard::tests::ends::who_comes_when_no_descriptor_is_left_is_turned_away";
    let mut child = std::process::Command::new(std::env::current_exe().expect("own path"))
        .args(["--exact", name, "--nocapture"])
        .env(CHILD, "1")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("child");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
    let port = lines.find_map(|line| line.split("port ").nth(1)?.trim().parse::<u16>().ok()).expect("a port");
    let ask = |stream: &mut std::net::TcpStream| {
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("option");
        let _ = stream.write_all(&request(ECHO, 1, b""));
        let mut reply = [0; 15];
        stream.read_exact(&mut reply).map_err(|error| error.kind())
    };
    let mut streams: Vec<_> =
        (0..100).map(|_| std::net::TcpStream::connect(("127.0.0.1", port)).expect("connected")).collect();
    let answers: Vec<_> = streams.iter_mut().map(ask).collect();
    let served = answers.iter().filter(|answer| answer.is_ok()).count();
    assert!((10..40).contains(&served), "{answers:?}");
    assert!(!answers.contains(&Err(io::ErrorKind::WouldBlock)), "nobody is left without an answer: {answers:?}");
    drop(streams);
    let again = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        ask(&mut std::net::TcpStream::connect(("127.0.0.1", port)).expect("connected")).is_ok()
    });
    assert!(again, "served again once others have left");
    child.kill().expect("ended");
    let _ = child.wait();
}
