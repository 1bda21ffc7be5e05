//! Orderly stops: requests in flight are answered, the logs are whole, the same ports serve again at once.

use crate::broker::{Broker, Start};
use crate::wire::{
    Client, PRODUCE_VERSION, await_leader, batch, create_topic, kept, leaders, produce, produce_request, produced,
    read_all,
};
use kafka_protocol::messages::ProduceRequest;
use rustix::process::Signal;
use std::path::Path;

const CLEAN: &str = ".kafka_cleanshutdown";

fn started_again(dir: &Path, port: u16) -> Broker {
    Start::new(dir).port(port).start()
}

#[test]
fn a_signal_drains_and_the_next_start_has_nothing_to_scan() {
    for signal in [Signal::TERM, Signal::INT] {
        let dir = tempfile::tempdir().expect("temporary directory");
        let broker = Start::new(dir.path()).start();
        let (port, leader) = (broker.port, create_topic(&broker, "kept", 1, &[])[0]);
        let mut client = Client::connect(leader);
        let mut sent = Vec::new();
        // The last ones are under way when the signal comes.
        for seed in 0..60 {
            let batch = batch(seed, 2, 2000);
            client.send(PRODUCE_VERSION, &produce_request("kept", 0, -1, batch.clone())).expect("sent");
            sent.push(batch);
            if seed == 30 {
                assert_eq!(produced(&client.receive::<ProduceRequest>(PRODUCE_VERSION).expect("an answer")), Ok(0));
            }
        }
        assert!(!dir.path().join(CLEAN).exists(), "no mark while it runs");
        let (status, log) = broker.stop(signal);
        assert!(status.success() && log.contains("stopped cleanly"), "{status:?}\n{log}");
        assert!(dir.path().join(CLEAN).exists());
        let mut acked = 1;
        while let Ok(answer) = client.receive::<ProduceRequest>(PRODUCE_VERSION) {
            assert_eq!(produced(&answer), Ok(acked * 2));
            acked += 1;
        }
        let broker = started_again(dir.path(), port);
        let log = broker.log();
        assert!(!log.contains("to recover") && !log.contains("recovered"), "nothing was looked through:\n{log}");
        let found = read_all(&mut Client::connect(leaders(port, "kept")[0]), "kept", 0);
        assert!(found.len() >= acked as usize, "{} batches of {acked} acknowledged", found.len());
        assert!(found.iter().zip(&sent).all(|((_, found), sent)| kept(found) == kept(sent)));
    }
}

#[test]
fn the_same_ports_serve_again_at_once_though_clients_are_connected() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut broker = Start::new(dir.path()).start();
    let port = broker.port;
    let leader = create_topic(&broker, "again", 1, &[])[0];
    let mut expected = 0;
    for round in 0..4 {
        // Connections on both shards, idle and in use, that stay open at the clients' end.
        let mut connected: Vec<_> = (0..20).map(|n| Client::connect(broker.port_of(n % 2))).collect();
        let mut client = Client::connect(leader);
        assert_eq!(produce(&mut client, "again", 0, 1, batch(round, 1, 100)), Ok(expected));
        expected += 1;
        if round % 2 == 0 {
            assert!(broker.stop(Signal::TERM).0.success());
        } else {
            broker.kill();
        }
        broker = started_again(dir.path(), port);
        let mut fresh = Client::connect(leader);
        await_leader(&mut fresh, "again", 0);
        assert_eq!(produce(&mut fresh, "again", 0, 1, batch(100 + round, 1, 100)), Ok(expected));
        expected += 1;
        assert!(client.is_closed_by_peer() && connected.iter_mut().all(Client::is_closed_by_peer));
    }
}
