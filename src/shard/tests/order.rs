//! Answers leave in the order of the requests, whatever each has to wait for.

use super::*;

#[test]
fn answers_keep_the_order_of_requests_though_later_ones_are_ready_first() {
    on_shard(async {
        let fixture = Fixture::start(NetSettings::default());
        let mut stream = fixture.connect().await;
        let waits = [40u64, 0, 30, 5, 0, 60, 1];
        let mut requests = Vec::new();
        for (index, wait) in waits.iter().enumerate() {
            let operation = if *wait == 0 { ECHO } else { SLEEP };
            requests.extend(keyed_request(index as i16 % 2, operation, *wait, &[index as u8]));
        }
        let begun = std::time::Instant::now();
        send(&mut stream, &requests).await;
        for index in 0..waits.len() {
            assert_eq!(read_reply(&mut stream).await.expect("reply")[11], index as u8);
        }
        // The longest wait, not the sum (136 ms): waiting overlaps.
        assert!(begun.elapsed() < Duration::from_millis(120), "{:?}", begun.elapsed());
    });
}

#[test]
fn a_thousand_pipelined_requests_need_few_system_calls() {
    on_shard(async {
        let fixture = Fixture::start(NetSettings::default());
        let mut stream = fixture.connect().await;
        let requests: Vec<u8> = (0..1000).flat_map(|index| request(ECHO, index, &[1; 40])).collect();
        send(&mut stream, &requests).await;
        for index in 0..1000u64 {
            assert_eq!(read_reply(&mut stream).await.expect("reply")[3..11], index.to_be_bytes());
        }
        let counters = fixture.network.metrics();
        assert_eq!(counters.requests.get(), 1000);
        assert!(counters.reads.get() < 20, "{counters:?}");
        // 128 in flight at most, so at least 8 writes.
        assert!(counters.writes.get() < 60, "{counters:?}");
        assert_eq!(counters.bytes_in.get(), requests.len() as u64);
        assert_eq!(counters.bytes_out.get(), requests.len() as u64);
    });
}

#[test]
fn frames_arrive_whole_however_the_network_cuts_them() {
    on_shard(async {
        let fixture = Fixture::start(NetSettings::default());
        let mut stream = fixture.connect().await;
        let mut random = fastrand::Rng::with_seed(7);
        let sizes = [0, 1, 100, 4000, 9000, 20_000, 40_000, 70_000, 130_000, 300_000, 50, 300_000, 299_000, 1_500_000];
        let requests: Vec<Vec<u8>> =
            (0..60).map(|index| request(ECHO, index, &pattern(sizes[random.usize(..sizes.len())]))).collect();
        let (mut read, mut write) = stream.split();
        let all: Vec<u8> = requests.concat();
        let sending = async {
            let mut rest = &all[..];
            while !rest.is_empty() {
                let most = [3, 2000, 200_000][random.usize(..3)];
                let part = rest.len().min(1 + random.usize(..most));
                write.write_all(&rest[..part]).await.expect("sent");
                rest = &rest[part..];
                if random.u8(..4) == 0 {
                    tokio::task::yield_now().await;
                }
            }
        };
        let receiving = async {
            for request in &requests {
                let mut reply = vec![0; request.len()];
                read.read_exact(&mut reply).await.expect("reply");
                assert!(&reply == request);
            }
        };
        tokio::join!(sending, receiving);
        assert_eq!(fixture.network.receive_bytes(), 0, "everything is answered, nothing is held");
    });
}

#[test]
fn requests_without_an_answer_leave_no_gap() {
    on_shard(async {
        let fixture = Fixture::start(NetSettings::default());
        let mut stream = fixture.connect().await;
        let mut requests = Vec::new();
        for index in 0..1000 {
            requests.extend(request(if index % 2 == 0 { NOTHING } else { EMPTY }, index, b""));
        }
        requests.extend(request(ECHO, 1000, b"end"));
        send(&mut stream, &requests).await;
        assert_eq!(read_reply(&mut stream).await.expect("reply")[11..], *b"end");
        assert_eq!(fixture.service.requests.get(), 1001);
        assert_eq!(fixture.network.receive_bytes(), 0);
    });
}

#[test]
fn a_large_answer_does_not_keep_others_waiting() {
    on_shard(async {
        let fixture = Fixture::start(NetSettings::default());
        let mut greedy = fixture.connect().await;
        let mut modest = fixture.connect().await;
        send(&mut greedy, &request(BYTES, 256 << 20, b"")).await;
        // Somebody reads as fast as the shard sends.
        let reader = tokio_uring::spawn(async move { read_reply(&mut greedy).await.expect("reply").len() });
        for index in 0..20 {
            send(&mut modest, &request(ECHO, index, b"")).await;
            read_reply(&mut modest).await.expect("reply");
        }
        // Nor appends: the ring's queue is submitted only when the thread parks.
        let file = tempfile::tempfile().expect("file");
        let file = tokio_uring::fs::File::from_std(file);
        for index in 0..3u64 {
            let (written, _) = file.write_at(vec![1u8; 100], index * 100).submit().await;
            assert_eq!(written.expect("written"), 100);
        }
        assert!(!reader.is_finished(), "the large answer is still on its way");
        assert_eq!(reader.await.expect("read"), 256 << 20);
        assert!(fixture.network.metrics().breathers.get() > 0);
    });
}
