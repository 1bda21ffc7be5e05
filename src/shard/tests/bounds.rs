//! Nothing grows without bound: requests and bytes in flight, receive memory, connections, the cost of idle ones.

use super::*;
use crate::base::limits::{CONNECTION_HELD_BYTES_MAX, CONNECTION_IN_FLIGHT_MAX};
use crate::shard::ConnectionLimits;

#[test]
fn a_peer_that_never_reads_is_no_longer_read() {
    on_shard(async {
        let fixture = Fixture::start(NetSettings::default());
        let mut stream = fixture.connect().await;
        let one = request(BYTES, 100_000, &[0; 10_000]);
        // Sends for as long as it is taken, and reads nothing.
        let sent = Rc::new(Cell::new(0));
        let count = Rc::clone(&sent);
        let flood = tokio_uring::spawn(async move {
            while stream.write_all(&one).await.is_ok() {
                count.set(count.get() + 1);
            }
        });
        fixture.until("a pause", |fixture| fixture.network.metrics().reading_paused.get() > 0).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        let requests = fixture.service.requests.get();
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(fixture.service.requests.get(), requests, "no further request is taken");
        // Those whose answers fit the sockets' buffers have gone; of the others there are no more than allowed.
        let gone = fixture.network.metrics().bytes_out.get() as usize / 100_004;
        assert!(requests - gone <= CONNECTION_IN_FLIGHT_MAX + 1, "{requests} taken, {gone} answered");
        flood.abort();
    });
}

#[test]
fn waiting_requests_of_one_connection_are_bounded_in_number_and_bytes() {
    on_shard(async {
        let fixture = Fixture::start(NetSettings::default());
        let mut many = fixture.connect().await;
        let requests: Vec<u8> = (0..300).flat_map(|index| keyed_request(1, GATE, index, b"")).collect();
        send(&mut many, &requests).await;
        fixture.until("the first ones", |fixture| fixture.service.requests.get() >= CONNECTION_IN_FLIGHT_MAX).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(fixture.service.requests.get(), CONNECTION_IN_FLIGHT_MAX);

        let (mut large, mut write) = fixture.connect().await.into_split();
        let one = request(GATE, 0, &vec![1; 10 << 20]);
        let writing = tokio_uring::spawn(async move {
            for _ in 0..6 {
                write.write_all(&one).await.expect("written");
            }
            write
        });
        fixture.until("32 MiB", |fixture| fixture.network.receive_bytes() >= CONNECTION_HELD_BYTES_MAX).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(fixture.service.requests.get(), CONNECTION_IN_FLIGHT_MAX + 4, "the fourth passed the bound");

        fixture.service.open_gate();
        for index in 0..300u64 {
            assert_eq!(read_reply(&mut many).await.expect("reply")[3..11], index.to_be_bytes());
        }
        for _ in 0..6 {
            assert_eq!(read_reply(&mut large).await.expect("reply").len(), (10 << 20) + 11);
        }
        writing.await.expect("all is written");
        fixture.until("all is given back", |fixture| fixture.network.receive_bytes() == 0).await;
    });
}

/// Small requests behind one that waits: their large answers stayed in memory without being counted.
#[test]
fn answers_that_wait_for_their_turn_count_as_held() {
    on_shard(async {
        let fixture = Fixture::start(NetSettings::default());
        let mut stream = fixture.connect().await;
        send(&mut stream, &request(GATE, 0, b"")).await;
        for _ in 0..40 {
            send(&mut stream, &request(BYTES, 1 << 20, b"")).await;
        }
        fixture.until("a pause", |fixture| fixture.network.metrics().reading_paused.get() > 0).await;
        assert_eq!(fixture.service.requests.get(), 1 + 32, "32 MiB of answers, no more");
        fixture.service.open_gate();
        read_reply(&mut stream).await.expect("the gate's");
        for _ in 0..40 {
            assert_eq!(read_reply(&mut stream).await.expect("reply").len(), 1 << 20);
        }
        fixture.until("all is given back", |fixture| fixture.network.receive_bytes() == 0).await;
    });
}

#[test]
fn receive_memory_is_bounded_over_all_connections_and_nobody_deadlocks() {
    const BUDGET: usize = 4 << 20;
    on_shard(async {
        let fixture = Fixture::start(NetSettings { receive_bytes_max: BUDGET, ..NetSettings::default() });
        let highest = Rc::new(Cell::new(0));
        // Twenty clients send frames of 3 MiB at once: together fifteen times the budget.
        let frame = Rc::new(request(ECHO, 0, &pattern(3 << 20)));
        let mut clients = Vec::new();
        for _ in 0..20 {
            let mut stream = fixture.connect().await;
            let frame = Rc::clone(&frame);
            clients.push(tokio_uring::spawn(async move {
                for _ in 0..3 {
                    let (mut read, mut write) = stream.split();
                    let mut reply = vec![0; frame.len()];
                    let (sent, received) = tokio::join!(write.write_all(&frame), read.read_exact(&mut reply));
                    sent.expect("sent");
                    received.expect("received");
                    assert!(reply == *frame);
                }
            }));
        }
        let mut done = false;
        while !done {
            highest.set(highest.get().max(fixture.network.receive_bytes()));
            done = clients.iter().all(|client| client.is_finished());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        for client in clients {
            client.await.expect("served");
        }
        assert!(highest.get() > BUDGET / 2, "the budget was put to the test: {}", highest.get());
        assert!(highest.get() <= BUDGET + (3 << 20) + 1024, "one frame above the budget at most: {}", highest.get());
        fixture.until("all is given back", |fixture| fixture.network.receive_bytes() == 0).await;
    });
}

/// A connection's costly requests that came together were all served before anybody else had a turn.
#[test]
fn costly_requests_of_one_connection_let_others_have_their_turn() {
    const COSTLY: usize = 100;
    on_shard(async {
        let fixture = Fixture::start(NetSettings::default());
        let (mut costly, mut other) = (fixture.connect().await, fixture.connect().await);
        fixture.until("both", |fixture| fixture.network.connections() == 2).await;
        let requests: Vec<u8> = (0..COSTLY as u64).flat_map(|_| request(SPIN, 2000, b"")).collect();
        send(&mut costly, &requests).await;
        for _ in 0..3 {
            send(&mut other, &request(ECHO, 7, b"")).await;
            read_reply(&mut other).await.expect("reply");
        }
        let served = fixture.service.requests.get();
        assert!(served < COSTLY / 2, "{served} requests were served before the other connection's third");
        for _ in 0..COSTLY {
            read_reply(&mut costly).await.expect("all are answered");
        }
    });
}

/// With the shard's memory used up, a connection that had nothing in flight had all that one read had brought dispatched.
#[test]
fn without_memory_each_connection_has_one_request_in_flight() {
    on_shard(async {
        let fixture = Fixture::start(NetSettings { receive_bytes_max: 100_000, ..NetSettings::default() });
        let mut large = fixture.connect().await;
        send(&mut large, &request(GATE, 0, &[0; 110_000])).await;
        fixture.until("the large one", |fixture| fixture.service.requests.get() == 1).await;
        let mut streams = Vec::new();
        for index in 0..3 {
            let mut stream = fixture.connect().await;
            let requests: Vec<u8> = (0..50).flat_map(|n| keyed_request(1, GATE, n, &[0; 100])).collect();
            send(&mut stream, &requests).await;
            fixture.until("the first one", |fixture| fixture.service.requests.get() >= 2 + index).await;
            streams.push(stream);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(fixture.service.requests.get(), 4, "one of each");
        fixture.service.open_gate();
        for stream in &mut streams {
            for index in 0..50u64 {
                assert_eq!(read_reply(stream).await.expect("reply")[3..11], index.to_be_bytes());
            }
        }
        read_reply(&mut large).await.expect("reply");
        fixture.until("all is given back", |fixture| fixture.network.receive_bytes() == 0).await;
    });
}

/// What waited for room in a connection's queue stayed in the chunk that it had been read into: some bytes kept 128 KiB.
#[test]
fn requests_that_wait_for_room_do_not_keep_the_chunk_of_all() {
    const CONNECTIONS: usize = 300;
    alone("bounds::requests_that_wait_for_room_do_not_keep_the_chunk_of_all", async {
        let fixture = Fixture::start(NetSettings::default());
        let mut filler = fixture.connect().await;
        let mut streams = Vec::new();
        let before = resident_bytes();
        for index in 0..CONNECTIONS {
            let mut stream = fixture.connect().await;
            let requests: Vec<u8> = (0..140).flat_map(|n| keyed_request(1, GATE, n, b"")).collect();
            send(&mut stream, &requests).await;
            let taken = index * (CONNECTION_IN_FLIGHT_MAX + 8) + CONNECTION_IN_FLIGHT_MAX;
            fixture.until("as many as allowed", |fixture| fixture.service.requests.get() == taken).await;
            streams.push(stream);
            // Others fill the rest of the chunk.
            for _ in 0..8 {
                send(&mut filler, &request(ECHO, 0, &[0; 16_000])).await;
                read_reply(&mut filler).await.expect("reply");
            }
        }
        let grown = resident_bytes().saturating_sub(before);
        assert!(grown / CONNECTIONS <= 64 << 10, "{} bytes a connection", grown / CONNECTIONS);
        fixture.service.open_gate();
        for stream in &mut streams {
            for index in 0..140u64 {
                assert_eq!(read_reply(stream).await.expect("reply")[3..11], index.to_be_bytes());
            }
        }
    });
}

#[test]
fn a_length_alone_reserves_nothing() {
    alone("bounds::a_length_alone_reserves_nothing", async {
        let fixture = Fixture::start(NetSettings::default());
        let before = resident_bytes();
        let mut streams = Vec::new();
        for _ in 0..200 {
            let mut stream = fixture.connect().await;
            // 100 MB are announced, 5 bytes come.
            send(&mut stream, &[6, 0, 0, 0, 0]).await;
            streams.push(stream);
        }
        fixture.until("all are read", |fixture| fixture.network.metrics().bytes_in.get() == 1000).await;
        assert_eq!(fixture.network.receive_bytes(), 0);
        let grown = resident_bytes().saturating_sub(before);
        assert!(grown < 20 << 20, "{grown} bytes for 200 announcements");
    });
}

#[test]
fn a_length_beyond_the_limit_or_below_zero_closes_the_connection() {
    on_shard(async {
        let fixture = Fixture::start(NetSettings { request_bytes_max: 1000, ..NetSettings::default() });
        for length in [1001u32, u32::MAX, 1 << 31] {
            let mut stream = fixture.connect().await;
            send(&mut stream, &request(ECHO, 1, b"before")).await;
            send(&mut stream, &length.to_be_bytes()).await;
            assert_eq!(&read_reply(&mut stream).await.expect("the earlier request is answered")[11..], b"before");
            assert_eq!(stream.read(&mut [0; 8]).await.unwrap_or(0), 0, "closed");
        }
        let mut stream = fixture.connect().await;
        send(&mut stream, &request(ECHO, 1, &[0; 989])).await;
        assert_eq!(read_reply(&mut stream).await.expect("exactly the limit").len(), 1000);
    });
}

fn limited(limits: ConnectionLimits) -> NetSettings {
    NetSettings { limits, ..NetSettings::default() }
}

#[test]
fn limits_may_change_while_others_wait() {
    on_shard(async {
        let most = |total| ConnectionLimits { total, ..ConnectionLimits::default() };
        let settings = NetSettings { connections_possible: 2, ..limited(most(1)) };
        let fixture = Fixture::start(settings);
        let mut streams = Vec::new();
        for index in 0..3 {
            let mut stream = fixture.connect().await;
            send(&mut stream, &request(ECHO, index, b"")).await;
            streams.push(stream);
        }
        read_reply(&mut streams[0]).await.expect("reply");
        fixture.network.set_limits(most(3));
        read_reply(&mut streams[1]).await.expect("there is room for it now");
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(fixture.network.connections(), 2, "for more there are no descriptors");
    });
}

#[test]
fn connections_beyond_the_maximum_wait_for_their_turn() {
    on_shard(async {
        let fixture = Fixture::start(limited(ConnectionLimits { total: 10, ..ConnectionLimits::default() }));
        let mut served = Vec::new();
        for _ in 0..10 {
            let mut stream = fixture.connect().await;
            send(&mut stream, &request(ECHO, 1, b"")).await;
            read_reply(&mut stream).await.expect("reply");
            served.push(stream);
        }
        // Thirty more are in the backlog: connected as far as they can tell, but not served.
        let mut waiting = Vec::new();
        for _ in 0..30 {
            let mut stream = fixture.connect().await;
            send(&mut stream, &request(ECHO, 2, b"")).await;
            waiting.push(stream);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(fixture.network.connections(), 10);
        send(&mut served[3], &request(ECHO, 3, b"")).await;
        read_reply(&mut served[3]).await.expect("those who are in are served meanwhile");
        drop(served);
        for mut stream in waiting {
            read_reply(&mut stream).await.expect("served in turn");
        }
    });
}

#[test]
fn an_address_has_no_more_connections_than_allowed() {
    on_shard(async {
        let overrides = [("127.0.0.9".parse().expect("address"), 2)].into_iter().collect();
        let limits = ConnectionLimits { per_ip: 3, per_ip_overrides: overrides, ..ConnectionLimits::default() };
        let fixture = Fixture::start(limited(limits));
        for (source, max) in [("127.0.0.1", 3), ("127.0.0.9", 2)] {
            let mut streams = Vec::new();
            let mut closed = 0;
            for _ in 0..6 {
                let socket = tokio::net::TcpSocket::new_v4().expect("socket");
                socket.bind(format!("{source}:0").parse().expect("address")).expect("bound");
                let mut stream = socket.connect(fixture.address).await.expect("connected");
                let _ = stream.write_all(&request(ECHO, 1, b"")).await;
                match read_reply(&mut stream).await {
                    Ok(_) => streams.push(stream),
                    Err(_) => closed += 1,
                }
            }
            assert_eq!((streams.len(), closed), (max, 6 - max), "from {source}");
        }
        fixture.until("all are gone", |fixture| fixture.network.connections() == 0).await;
        let mut again = fixture.connect().await;
        send(&mut again, &request(ECHO, 1, b"")).await;
        read_reply(&mut again).await.expect("a place is free again");
    });
}

#[test]
fn idle_connections_cost_little() {
    const CONNECTIONS: usize = 5000;
    alone("bounds::idle_connections_cost_little", async {
        let sockets = listener::SocketSettings { backlog: 4096, ..Default::default() };
        let fixture = Fixture::start_with(NetSettings::default(), sockets);
        let mut warm = Vec::new();
        for _ in 0..100 {
            warm.push(fixture.connect().await);
        }
        fixture.until("the first ones", |fixture| fixture.network.connections() == 100).await;
        let before = resident_bytes();
        let mut streams = Vec::with_capacity(CONNECTIONS);
        for index in 0..CONNECTIONS {
            let mut stream = fixture.connect().await;
            // Each has done something, and every second one has half a frame on its way.
            send(&mut stream, &keyed_request(3, ECHO, index as u64, &[0; 200])).await;
            read_reply(&mut stream).await.expect("reply");
            if index % 2 == 0 {
                send(&mut stream, &[0, 0, 1, 0, 0]).await;
            }
            streams.push(stream);
        }
        let grown = resident_bytes().saturating_sub(before);
        // The clients' side of the sockets lives in this process too.
        assert!(grown / CONNECTIONS <= 8 << 10, "{} bytes a connection", grown / CONNECTIONS);
        println!("{} bytes a connection, the client's side included", grown / CONNECTIONS);
        let reads = fixture.network.metrics().reads.get();
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(fixture.network.metrics().reads.get(), reads);
    });
}
