//! Which threads there are, and how well writes are batched.

use crate::broker::{SHARDS, Start};
use crate::wire::{Client, PRODUCE_VERSION, batch, create_topic, kept, produce, produce_request, produced, read_all};
use kafka_protocol::messages::ProduceRequest;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// CPUs each thread may run on, by thread name.
fn affinities(pid: u32) -> BTreeMap<String, String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the broker lives");
    let mut found = BTreeMap::new();
    for task in tasks {
        // Threads of the pool may end while we look.
        let Ok(status) = fs::read_to_string(task.expect("an entry").path().join("status")) else { continue };
        let field =
            |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(|text| text.trim().to_owned());
        let (name, cpus) = (field("Name:").expect("a name"), field("Cpus_allowed_list:").expect("a list of CPUs"));
        found.insert(name, cpus);
    }
    found
}

#[test]
fn each_shard_is_one_thread_pinned_to_its_core() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let broker = Start::new(dir.path()).start();
    let affinities = affinities(broker.pid());
    let cpus: Vec<usize> = (0..SHARDS)
        .map(|shard| {
            let allowed = &affinities[&format!("shard-{shard}")];
            allowed.parse().unwrap_or_else(|_| panic!("shard {shard} may run on {allowed}, which is not one CPU"))
        })
        .collect();
    let ours = std::thread::available_parallelism().expect("known").get();
    let distinct = cpus.iter().collect::<BTreeSet<_>>().len();
    assert_eq!(distinct, ours.min(usize::from(SHARDS)), "shards share cores only where there are fewer: {cpus:?}");
    let main = &affinities["corelog"];
    assert!(ours == 1 || main.parse::<usize>().is_err(), "the control plane is not pinned, but may run on {main} only");
}

#[test]
fn under_load_one_write_carries_many_requests() {
    const REQUESTS: usize = 3_000;
    let dir = tempfile::tempdir().expect("temporary directory");
    let broker = Start::new(dir.path()).start();
    let leader = create_topic(&broker, "batched", 1, &[])[0];
    let mut client = Client::connect(leader);
    produce(&mut client, "batched", 0, 1, batch(0, 1, 100)).expect("the first one, which makes the files");
    let before = broker.counters();
    // Requests are sent as fast as the broker takes them; each waits for its own answer, none for another's.
    let batches: Vec<_> = (1..=REQUESTS as u64).map(|seed| batch(seed, 1, 100)).collect();
    let mut sender = client.twin();
    let to_send = batches.clone();
    let sending = std::thread::spawn(move || {
        for batch in to_send {
            sender.send(PRODUCE_VERSION, &produce_request("batched", 0, 1, batch)).expect("sent");
        }
    });
    for offset in 1..=REQUESTS as i64 {
        let answer = client.receive::<ProduceRequest>(PRODUCE_VERSION).expect("an answer");
        assert_eq!(produced(&answer), Ok(offset), "answers come in the order of the requests");
    }
    sending.join().expect("the sender");
    let shard = usize::from(leader - broker.port);
    let after = broker.counters();
    let moved =
        |name: &str| after[shard][name].as_u64().expect("a count") - before[shard][name].as_u64().expect("a count");
    let (appends, writes) = (moved("appends"), moved("append_writes"));
    assert_eq!(appends, REQUESTS as u64);
    assert!(writes * 4 <= appends, "{appends} requests took {writes} writes");
    assert!(after[shard]["append_batches_max"].as_u64() >= Some(8), "{}", after[shard]);
    assert_eq!(moved("requests"), REQUESTS as u64, "nothing else asked this shard");
    assert_eq!(after[shard]["requests_by_key"]["0"], REQUESTS + 1);
    let kept_by_broker: Vec<_> = read_all(&mut client, "batched", 0).iter().skip(1).map(|(_, b)| kept(b)).collect();
    assert!(kept_by_broker.iter().eq(batches.iter().map(kept).collect::<Vec<_>>().iter()), "what was sent is there");
}
