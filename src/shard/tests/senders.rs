//! File slices arrive byte for byte, by splice and by sendfile, at any reader's pace.

use super::*;
use crate::shard::FileSender;

const FILE_BYTES: usize = 6 << 20;

fn fixture(choice: FileSender, pipes_max: usize, send_buffer_bytes: Option<usize>) -> (Fixture, Vec<u8>) {
    let content = pattern(FILE_BYTES);
    let path = tempfile::NamedTempFile::new().expect("file").into_temp_path();
    std::fs::write(&path, &content).expect("written");
    let sockets = listener::SocketSettings { send_buffer_bytes, ..Default::default() };
    let fixture = Fixture::start_with(NetSettings { file_sender: choice, pipes_max, ..Default::default() }, sockets);
    *fixture.service.file.borrow_mut() = Some(Rc::new(std::fs::File::open(&path).expect("opened")));
    (fixture, content)
}

fn file_request(slices: &[(u64, u64)]) -> Vec<u8> {
    let rest: Vec<u8> =
        slices.iter().flat_map(|(at, length)| [at.to_be_bytes(), length.to_be_bytes()].concat()).collect();
    keyed_request(1, FILE, 0, &rest)
}

fn expected(content: &[u8], slices: &[(u64, u64)]) -> Vec<u8> {
    slices.iter().flat_map(|(at, length)| [b"hdr", &content[*at as usize..(at + length) as usize]].concat()).collect()
}

#[test]
fn slices_of_any_size_and_position_come_byte_for_byte() {
    for choice in [FileSender::Auto, FileSender::Sendfile, FileSender::Splice] {
        on_shard(async {
            let (fixture, content) = fixture(choice, 2, None);
            let mut stream = fixture.connect().await;
            let mut random = fastrand::Rng::with_seed(11);
            let mut wanted = Vec::new();
            for _ in 0..40 {
                let slices: Vec<(u64, u64)> = (0..random.usize(1..5))
                    .map(|_| {
                        let most = [0, 1, 100, 4096, 65_536, 70_000, 1 << 20, 3_000_000][random.usize(..8)];
                        (random.u64(..FILE_BYTES as u64 - most), most)
                    })
                    .collect();
                send(&mut stream, &file_request(&slices)).await;
                wanted.push(expected(&content, &slices));
            }
            for wanted in wanted {
                assert!(read_reply(&mut stream).await.expect("reply") == wanted, "{choice:?}");
            }
            let counters = fixture.network.metrics();
            assert_eq!(counters.splice_calls.get() > 0, choice != FileSender::Sendfile, "{counters:?}");
            assert_eq!(counters.sendfile_calls.get() > 0, choice != FileSender::Splice, "{counters:?}");
        });
    }
}

#[test]
fn slow_readers_get_every_byte_and_share_the_pipes() {
    for choice in [FileSender::Sendfile, FileSender::Splice] {
        on_shard(async {
            let (fixture, content) = fixture(choice, 2, Some(30_000));
            let slices = [(5, 2_000_001), (70_000, 10), (1, 300_000)];
            let wanted = Rc::new(expected(&content, &slices));
            let mut readers = Vec::new();
            for index in 0..6usize {
                let mut stream = fixture.connect().await;
                send(&mut stream, &file_request(&slices)).await;
                let wanted = Rc::clone(&wanted);
                readers.push(tokio_uring::spawn(async move {
                    let mut got = vec![0; 4];
                    stream.read_exact(&mut got).await.expect("length");
                    got.clear();
                    let mut part = vec![0; 1 + 20_000 * (index + 1)];
                    while got.len() < wanted.len() {
                        let read = stream.read(&mut part).await.expect("read");
                        assert!(read > 0, "ended after {}", got.len());
                        got.extend(&part[..read]);
                        if index.is_multiple_of(2) && got.len().is_multiple_of(3) {
                            tokio::time::sleep(Duration::from_millis(1)).await;
                        }
                    }
                    assert!(got == *wanted);
                }));
            }
            // While others are blocked with whatever pipes they kept, a fast reader is served.
            let mut fast = fixture.connect().await;
            send(&mut fast, &file_request(&[(0, 1 << 20)])).await;
            assert!(read_reply(&mut fast).await.expect("reply") == expected(&content, &[(0, 1 << 20)]));
            for reader in readers {
                reader.await.expect("reader");
            }
            assert!(fixture.network.pipes() <= 2);
        });
    }
}

#[test]
fn blocked_transfers_leave_a_pipe_to_others() {
    on_shard(async {
        let (fixture, content) = fixture(FileSender::Splice, 3, Some(30_000));
        let mut stuck = Vec::new();
        for _ in 0..8 {
            let mut stream = fixture.connect().await;
            send(&mut stream, &file_request(&[(0, 4 << 20)])).await;
            stuck.push(stream);
        }
        fixture.until("all are blocked", |fixture| fixture.service.requests.get() == 8).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        let sendfile_before = fixture.network.metrics().sendfile_calls.get();
        let mut fast = fixture.connect().await;
        send(&mut fast, &file_request(&[(0, 1 << 20)])).await;
        assert!(read_reply(&mut fast).await.expect("reply") == expected(&content, &[(0, 1 << 20)]));
        assert_eq!(fixture.network.metrics().sendfile_calls.get(), sendfile_before, "there was a pipe for it");
        assert!(fixture.network.pipes() <= 3);
        // The stuck ones leave; their pipes are accounted for, and serve again.
        drop(stuck);
        drop(fast);
        fixture.until("all are gone", |fixture| fixture.network.connections() == 0).await;
        assert!(fixture.network.pipes() <= 3);
        let mut again = fixture.connect().await;
        send(&mut again, &file_request(&[(3, 3 << 20)])).await;
        assert!(read_reply(&mut again).await.expect("reply") == expected(&content, &[(3, 3 << 20)]));
        assert_eq!(fixture.network.metrics().sendfile_calls.get(), sendfile_before);
    });
}

#[test]
fn without_pipes_splice_falls_back_to_sendfile() {
    on_shard(async {
        let (fixture, content) = fixture(FileSender::Splice, 0, None);
        let mut stream = fixture.connect().await;
        send(&mut stream, &file_request(&[(9, 2 << 20)])).await;
        assert!(read_reply(&mut stream).await.expect("reply") == expected(&content, &[(9, 2 << 20)]));
        assert_eq!(fixture.network.metrics().splice_calls.get(), 0);
    });
}

#[test]
fn a_file_shorter_than_promised_ends_the_connection() {
    for choice in [FileSender::Sendfile, FileSender::Splice] {
        on_shard(async {
            let (fixture, content) = fixture(choice, 2, None);
            let mut stream = fixture.connect().await;
            let at = FILE_BYTES as u64 - 1000;
            send(&mut stream, &file_request(&[(at, 5000)])).await;
            let mut got = Vec::new();
            stream.read_to_end(&mut got).await.expect("closed in order");
            assert_eq!(got.len(), 4 + 3 + 1000);
            assert!(got[7..] == content[at as usize..]);
            fixture.until("it is gone", |fixture| fixture.network.connections() == 0).await;
        });
    }
}

#[test]
fn a_header_and_its_slice_leave_in_one_segment() {
    on_shard(async {
        let (fixture, content) = fixture(FileSender::Auto, 2, None);
        let mut stream = fixture.connect().await;
        send(&mut stream, &file_request(&[(0, 10_000)])).await;
        let mut got = vec![0; 20_000];
        stream.readable().await.expect("readable");
        let read = stream.try_read(&mut got).expect("read");
        assert_eq!(read, 4 + 3 + 10_000, "what wakes the reader is the whole answer");
        assert!(got[7..read] == content[..10_000]);
    });
}
