//! kill -9 in mid-write, again and again: whatever was acknowledged is there afterwards, byte for byte, without a gap.
//!
//! What the kernel has taken outlives the process, so this holds for acks=1 as for acks=all.

use crate::broker::Start;
use crate::wire::{
    Client, PRODUCE_VERSION, await_leader, batch, create_topic, kept, produce, produce_request, produced, read_all,
};
use bytes::Bytes;
use kafka_protocol::messages::ProduceRequest;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

const ROUNDS: u64 = 6;
const PARTITIONS: i32 = 4;
/// Requests that a writer has under way.
const WINDOW: usize = 40;

/// Acknowledged batches by base offset, without what the broker may set.
type Acked = BTreeMap<i64, Bytes>;

/// Writes to one partition until the connection ends.
fn write_until_killed(port: u16, partition: i32, acks: i16, seed: u64) -> Acked {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut client = Client::connect(port);
    let mut acked = Acked::new();
    let mut under_way: VecDeque<Bytes> = VecDeque::new();
    for number in 0.. {
        let batch = batch(seed << 32 | number, random.usize(1..20), [10, 300, 5000, 40_000][random.usize(..4)]);
        let request = produce_request("crash", partition, acks, batch.clone());
        if client.send(PRODUCE_VERSION, &request).is_err() {
            break;
        }
        under_way.push_back(batch);
        if under_way.len() == WINDOW && !receive_one(&mut client, &mut under_way, &mut acked) {
            return acked;
        }
    }
    // Answers that had left before the kill may still be here.
    while receive_one(&mut client, &mut under_way, &mut acked) {}
    acked
}

fn receive_one(client: &mut Client, under_way: &mut VecDeque<Bytes>, acked: &mut Acked) -> bool {
    let Ok(answer) = client.receive::<ProduceRequest>(PRODUCE_VERSION) else { return false };
    let Some(batch) = under_way.pop_front() else { return false };
    let offset = produced(&answer).expect("a healthy broker takes every batch");
    acked.insert(offset, kept(&batch));
    true
}

#[test]
fn what_was_acknowledged_survives_kill_9_in_mid_write() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let seed = fastrand::u64(..1 << 20);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    // Small segments, so that rolls are interrupted too.
    let configs = [("segment.bytes", "3000000"), ("index.interval.bytes", "4096")];
    let mut broker = Start::new(dir.path()).start();
    let port = broker.port;
    let leaders = create_topic(&broker, "crash", PARTITIONS, &configs);
    let mut acked: Vec<Acked> = vec![Acked::new(); PARTITIONS as usize];
    for round in 0..ROUNDS {
        let writers: Vec<_> = (0..PARTITIONS)
            .map(|partition| {
                let (leader, acks) = (leaders[partition as usize], if partition % 4 < 2 { 1 } else { -1 });
                let seed = seed * 1000 + round * 10 + partition as u64;
                std::thread::spawn(move || write_until_killed(leader, partition, acks, seed))
            })
            .collect();
        std::thread::sleep(Duration::from_millis(random.u64(300..1500)));
        broker.kill();
        for (all, writer) in acked.iter_mut().zip(writers) {
            all.append(&mut writer.join().expect("the writer"));
        }
        broker = Start::new(dir.path()).port(port).start();
        for partition in 0..PARTITIONS {
            let mut client = Client::connect(leaders[partition as usize]);
            await_leader(&mut client, "crash", partition);
            let found: BTreeMap<i64, Bytes> =
                read_all(&mut client, "crash", partition).iter().map(|(at, bytes)| (*at, kept(bytes))).collect();
            for (offset, batch) in &acked[partition as usize] {
                let there = found.get(offset);
                assert!(there == Some(batch), "round {round}: crash-{partition} lost or changed offset {offset}");
            }
            // The tail takes what comes next, right behind it.
            let end = found.last_key_value().map_or(0, |(at, _)| *at);
            let next = produce(&mut client, "crash", partition, -1, batch(round, 1, 10)).expect("produced");
            assert!(next > end || found.is_empty(), "{next} after {end}");
            acked[partition as usize].insert(next, kept(&batch(round, 1, 10)));
        }
    }
    let counts: Vec<usize> = acked.iter().map(BTreeMap::len).collect();
    assert!(
        counts.iter().all(|count| *count > ROUNDS as usize * 2),
        "too little was written to prove anything: {counts:?}"
    );
}
