//! Too many connections: idle ones, ones that trickle, ones beyond the limits.

use crate::Besieged;
use crate::wire::Client;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::{ApiVersionsRequest, IncrementalAlterConfigsRequest};
use kafka_protocol::protocol::StrBytes;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Connections of the well-behaved client on each shard.
const WITNESS: usize = 2;

/// As many descriptors as this process may have.
fn raise_descriptors(wanted: u64) {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
        .expect("up to the hard limit");
    assert!(
        limit.maximum.is_none_or(|most| most >= wanted),
        "this test needs {wanted} descriptors: ulimit -Hn {wanted}"
    );
}

fn asks_versions(client: &mut Client) -> bool {
    client.call(0, &ApiVersionsRequest::default()).is_ok_and(|answer| answer.error_code == 0)
}

#[test]
fn five_thousand_idle_connections_cost_little() {
    const CONNECTIONS: usize = 5_000;
    // The broker raises its own limit to the hard one, and keeps half of it for connections.
    raise_descriptors(2 * CONNECTIONS as u64 + 1000);
    let besieged = Besieged::start();
    let mut idle = Vec::new();
    for n in 0..CONNECTIONS {
        let mut client = Client::connect(besieged.broker.port_of((n % 2) as u16));
        // Half of them have asked something before they fall silent.
        if n % 4 < 2 {
            assert!(asks_versions(&mut client));
        }
        idle.push(client);
    }
    let wanted = (CONNECTIONS + 2 * WITNESS) as u64;
    besieged.broker.until("all are accepted", |shards| {
        shards.iter().filter_map(|shard| shard["connections"].as_u64()).sum::<u64>() == wanted
    });
    besieged.assert_memory(CONNECTIONS, false);
    assert!(idle.iter_mut().step_by(50).all(asks_versions), "and each of them still serves");
    drop(idle);
    besieged.broker.until("all are gone", |shards| {
        shards.iter().filter_map(|shard| shard["connections"].as_u64()).sum::<u64>() == 2 * WITNESS as u64
    });
    besieged.end();
}

#[test]
fn a_thousand_connections_that_trickle_hold_next_to_nothing() {
    const CONNECTIONS: usize = 1_000;
    raise_descriptors(2 * CONNECTIONS as u64);
    let besieged = Besieged::start();
    let mut slow: Vec<Client> =
        (0..CONNECTIONS).map(|n| Client::connect(besieged.broker.port_of((n % 2) as u16))).collect();
    // Each promises 50 MB, and gives a byte at a time.
    let promise = [&50_000_000u32.to_be_bytes()[..], &[0, 0, 0, 9], &[0; 40]].concat();
    for byte in &promise {
        for client in &mut slow {
            client.stream.write_all(&[*byte]).expect("the broker is patient");
        }
        besieged.assert_memory(CONNECTIONS, false);
    }
    drop(slow);
    besieged.end();
}

#[test]
fn connections_beyond_the_limit_wait_until_others_leave() {
    const MAX: usize = 40;
    let besieged = Besieged::start_with(|start| start.set("max.connections", MAX));
    let (port, room) = (besieged.broker.port, MAX - WITNESS);
    let mut served: Vec<Client> = (0..room).map(|_| Client::connect(port)).collect();
    assert!(served.iter_mut().all(asks_versions));
    // The kernel lets them connect, up to the backlog; the broker does not accept them.
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut waiting: Vec<TcpStream> = (0..30)
        .map(|_| TcpStream::connect_timeout(&address, Duration::from_secs(20)).expect("the backlog takes it"))
        .collect();
    let most = |shards: &[serde_json::Value]| shards[0]["connections"].as_u64().expect("a count") as usize;
    for stream in &mut waiting {
        stream.set_read_timeout(Some(Duration::from_millis(5))).expect("set");
        let request = crate::wire::frame(0, 1, &ApiVersionsRequest::default());
        stream.write_all(&request).expect("the kernel takes it");
        let silence = stream.read(&mut [0; 1]).expect_err("nobody serves it yet");
        assert!(matches!(silence.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut), "{silence}");
        assert!(most(&besieged.broker.counters()) <= MAX);
    }
    assert!(served.iter_mut().all(asks_versions), "those that are in are served meanwhile");
    served.truncate(room - waiting.len());
    for stream in &mut waiting {
        stream.set_read_timeout(Some(crate::broker::PATIENCE)).expect("set");
        stream.read_exact(&mut [0; 4]).expect("its turn has come");
    }
    assert!(most(&besieged.broker.counters()) <= MAX);
    besieged.end();
}

#[test]
fn one_address_has_no_more_than_its_share() {
    const MAX: usize = 20;
    let besieged = Besieged::start_with(|start| start.set("max.connections.per.ip", MAX));
    let port = besieged.broker.port;
    let mut served: Vec<Client> = (0..MAX - WITNESS).map(|_| Client::connect(port)).collect();
    assert!(served.iter_mut().all(asks_versions));
    for _ in 0..500 {
        assert!(Client::connect(port).is_closed_by_peer(), "closed at once, as Kafka does");
    }
    let counters = besieged.broker.counters();
    assert_eq!(counters[0]["connections"], MAX);
    assert!(counters[0]["connections_refused"].as_u64() >= Some(500));
    assert!(served.iter_mut().all(asks_versions));
    besieged.assert_memory(MAX, false);
    served.clear();
    besieged.broker.until("there is room again", |shards| shards[0]["connections"].as_u64() == Some(WITNESS as u64));
    assert!(asks_versions(&mut Client::connect(port)));
    besieged.end();
}

/// The setting was accepted and told, and did nothing until the next start.
#[test]
fn a_limit_that_is_altered_is_in_force_when_the_answer_comes() {
    const MAX: usize = 10;
    let besieged = Besieged::start();
    let port = besieged.broker.port;
    let alter = |client: &mut Client, limit: usize| {
        let change = AlterableConfig::default()
            .with_name(StrBytes::from_static_str("max.connections.per.ip"))
            .with_value(Some(StrBytes::from_string(limit.to_string())));
        let everywhere = AlterConfigsResource::default().with_resource_type(4).with_configs(vec![change]);
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![everywhere]);
        let answer = client.call(1, &request).expect("an answer");
        assert_eq!(answer.responses[0].error_code, 0, "{:?}", answer.responses[0].error_message);
    };
    let mut served: Vec<Client> = (0..MAX - WITNESS).map(|_| Client::connect(port)).collect();
    assert!(served.iter_mut().all(asks_versions));
    alter(&mut served[0], MAX);
    assert!(Client::connect(port).is_closed_by_peer());
    assert!(served.iter_mut().all(asks_versions), "who is in stays");
    alter(&mut served[0], MAX + 1);
    assert!(asks_versions(&mut Client::connect(port)));
    besieged.end();
}
