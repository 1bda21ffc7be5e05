//! Peers that make the broker hold something: large frames that never end, answers that are never read.

use crate::Besieged;
use crate::wire::{Client, FETCH_VERSION, batch, create_topic, fetch_request, frame, produce};
use bytes::Bytes;
use corelog::base::limits::GROUPS_BYTES_MAX;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::{FindCoordinatorRequest, GroupId, JoinGroupRequest, LeaveGroupRequest, MetadataRequest};
use kafka_protocol::protocol::StrBytes;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::{Duration, Instant};

/// Sends to all until they take nothing more for a while, or have had all of it. How much each has taken.
fn push_all(clients: &mut [Client], bytes: &[u8], besieged: &Besieged) -> Vec<usize> {
    let mut taken = vec![0; clients.len()];
    for client in clients.iter() {
        client.stream.set_nonblocking(true).expect("set");
    }
    let mut moved_at = Instant::now();
    while moved_at.elapsed() < Duration::from_secs(3) && taken.iter().any(|taken| *taken < bytes.len()) {
        for (client, taken) in clients.iter_mut().zip(&mut taken) {
            match client.stream.write(&bytes[*taken..]) {
                Ok(0) => {}
                Ok(some) => {
                    *taken += some;
                    moved_at = Instant::now();
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                // It was closed: the broker's right.
                Err(_) => *taken = bytes.len(),
            }
        }
        besieged.assert_memory(clients.len(), true);
        std::thread::sleep(Duration::from_millis(20));
    }
    taken
}

#[test]
fn large_frames_that_never_end_stay_within_the_budget() {
    const CONNECTIONS: usize = 300;
    let besieged = Besieged::start();
    let mut clients: Vec<Client> =
        (0..CONNECTIONS).map(|n| Client::connect(besieged.broker.port_of((n % 2) as u16))).collect();
    // 100 MB are promised by each, 5 MB given: 1.5 GB in all.
    let mut bytes = vec![0; 5 << 20];
    bytes[..4].copy_from_slice(&100_000_000u32.to_be_bytes());
    let taken = push_all(&mut clients, &bytes, &besieged);
    assert!(taken.iter().any(|taken| *taken < bytes.len()), "the broker stopped reading some of them: {taken:?}");
    besieged.end();
}

#[test]
fn fetches_whose_answers_nobody_reads_hold_no_records() {
    const CONNECTIONS: usize = 60;
    let besieged = Besieged::start();
    let leader = create_topic(&besieged.broker, "unread", 1, &[])[0];
    let mut writer = Client::connect(leader);
    for seed in 0..20 {
        produce(&mut writer, "unread", 0, 1, batch(seed, 10, 90_000)).expect("produced");
    }
    let mut clients: Vec<Client> = (0..CONNECTIONS).map(|_| Client::connect(leader)).collect();
    let one = frame(FETCH_VERSION, 1, &fetch_request("unread", 0, 0, 16 << 20, 0));
    let many = one.repeat(20_000);
    // Each could ask for 300 GB. Slices of files cost nothing, so only connections count.
    push_all(&mut clients, &many, &besieged);
    besieged.assert_memory(CONNECTIONS, false);
    let mut fresh = Client::connect(leader);
    let (high_watermark, _) = crate::wire::fetch(&mut fresh, "unread", 0, 0, 1 << 20);
    assert_eq!(high_watermark, 200, "others read on meanwhile");
    drop(clients);
    besieged.end();
}

#[test]
fn metadata_that_nobody_reads_stays_within_the_budget() {
    const CONNECTIONS: usize = 60;
    let besieged = Besieged::start();
    create_topic(&besieged.broker, "wide", 2_000, &[]);
    let mut clients: Vec<Client> =
        (0..CONNECTIONS).map(|n| Client::connect(besieged.broker.port_of((n % 2) as u16))).collect();
    let one = frame(9, 1, &MetadataRequest::default().with_topics(None));
    let many = one.repeat(200_000);
    push_all(&mut clients, &many, &besieged);
    drop(clients);
    besieged.end();
}

/// The port of a group's coordinator, which is waited for.
fn coordinator_of(besieged: &Besieged, group: &str) -> u16 {
    let key = StrBytes::from_string(group.to_owned());
    let request = FindCoordinatorRequest::default().with_key(key);
    loop {
        let found = Client::connect(besieged.broker.port).call(3, &request).expect("an answer");
        if found.error_code == 0 {
            return u16::try_from(found.port).expect("a port");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn joining(group: &str, bytes: usize) -> JoinGroupRequest {
    let protocol = JoinGroupRequestProtocol::default().with_name(StrBytes::from_static_str("range"));
    JoinGroupRequest::default()
        .with_group_id(GroupId(StrBytes::from_string(group.to_owned())))
        .with_session_timeout_ms(300_000)
        .with_rebalance_timeout_ms(300_000)
        .with_protocol_type(StrBytes::from_static_str("consumer"))
        .with_protocols(vec![protocol.with_metadata(Bytes::from(vec![0; bytes]))])
}

/// Members are kept for as long as their sessions last, and what they told with them: 30 of 100 MiB took 3 GB.
#[test]
fn members_that_tell_much_are_refused_where_there_is_no_room() {
    /// The last in which a member need not ask twice.
    const VERSION: i16 = 3;
    const MEMBERS: usize = 30;
    let besieged = Besieged::start_with(|start| start.set("group.initial.rebalance.delay.ms", 0));
    let mut clients: BTreeMap<u16, Client> = BTreeMap::new();
    let mut join = |group: &str| {
        let port = coordinator_of(&besieged, group);
        let client = clients.entry(port).or_insert_with(|| Client::connect(port));
        let answer = client.call(VERSION, &joining(group, 60 << 20)).expect("an answer");
        (answer.error_code, answer.member_id)
    };
    let groups_bytes = u64::from(crate::SHARDS) * GROUPS_BYTES_MAX as u64;
    let refused = ResponseError::CoordinatorLoadInProgress.code();
    let (mut codes, mut admitted) = (Vec::new(), Vec::new());
    for number in 0..MEMBERS {
        let group = format!("greedy-{number}");
        let (code, member) = join(&group);
        codes.push(code);
        admitted.extend((code == 0).then_some((group, member)));
        besieged.assert_memory_with(2, true, groups_bytes);
    }
    assert!(codes.iter().all(|code| [0, refused].contains(code)) && codes.contains(&0), "{codes:?}");
    assert!(codes.iter().filter(|code| **code == refused).count() > MEMBERS / 2, "{codes:?}");
    assert_eq!(join("modest").0, refused);
    for (group, member) in admitted {
        let leaving = LeaveGroupRequest::default().with_group_id(GroupId(StrBytes::from_string(group.clone())));
        let mut client = Client::connect(coordinator_of(&besieged, &group));
        assert_eq!(client.call(0, &leaving.with_member_id(member)).expect("an answer").error_code, 0);
    }
    assert_eq!(join("modest").0, 0, "those who are gone take nothing");
    drop(clients);
    besieged.end();
}
