//! Frames that are no requests, or whose lengths cannot be.

use crate::Besieged;
use crate::wire::{Client, FETCH_VERSION, PRODUCE_VERSION, batch, fetch_request, frame, produce_request};
use corelog::api::registry::APIS;
use std::io::Write;
use std::net::Shutdown;

/// The head of a request: key, version, correlation id, no client id, and tags where the version has them.
fn head(key: i16, version: i16, tags: bool) -> Vec<u8> {
    let mut head = [key.to_be_bytes(), version.to_be_bytes()].concat();
    head.extend([0, 0, 0, 7, 0xff, 0xff]);
    head.extend(tags.then_some(0));
    head
}

fn framed(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_be_bytes(), body].concat()
}

/// Sends, and says that nothing more will come. The broker may close earlier.
fn send_all(client: &mut Client, bytes: &[u8]) {
    let _ = client.stream.write_all(bytes);
    let _ = client.stream.shutdown(Shutdown::Write);
}

#[test]
fn a_length_that_cannot_be_closes_the_connection() {
    let besieged = Besieged::start();
    for length in [-1, i32::MIN, 0, 1, 7, 104_857_601, i32::MAX] {
        for shard in 0..2 {
            let mut client = Client::connect(besieged.broker.port_of(shard));
            client.stream.write_all(&length.to_be_bytes()).expect("sent");
            client.stream.write_all(&[0; 7]).expect("sent");
            assert!(client.is_closed_by_peer(), "length {length}");
        }
    }
    besieged.assert_memory(0, false);
    besieged.end();
}

#[test]
fn half_a_frame_and_then_silence_or_the_end() {
    let besieged = Besieged::start();
    let whole = frame(PRODUCE_VERSION, 1, &produce_request("witness", 0, 1, batch(1, 2, 50)));
    let mut silent = Vec::new();
    for length in 0..whole.len() {
        let mut client = Client::connect(besieged.broker.port_of((length % 2) as u16));
        client.stream.write_all(&whole[..length]).expect("sent");
        if length % 2 == 0 {
            client.stream.shutdown(Shutdown::Write).expect("shut down");
            assert!(client.is_closed_by_peer(), "after {length} bytes");
        } else {
            silent.push(client);
        }
    }
    besieged.assert_memory(silent.len(), false);
    drop(silent);
    besieged.end();
}

#[test]
fn absurd_array_lengths_in_every_api_and_version() {
    let besieged = Besieged::start();
    let lengths: [&[u8]; 5] = [
        &[0x7f, 0xff, 0xff, 0xff],
        &[0x05, 0xf5, 0xe1, 0x00],
        &[0xff, 0xff, 0xff, 0xff, 0x0f],
        &[0x81, 0x80, 0x80, 0x80, 0x04],
        &[0x80],
    ];
    for api in APIS {
        for version in api.accepted_min..=api.max {
            for (n, length) in lengths.iter().enumerate() {
                for tags in [false, true] {
                    // Fields that come before the first array are of different lengths: the absurd one is met somewhere.
                    for before in [0, 1, 6, 16] {
                        let mut body = head(api.key, version, tags);
                        body.extend(std::iter::repeat_n(0, before));
                        (0..12).for_each(|_| body.extend_from_slice(length));
                        let mut client = Client::connect(besieged.broker.port_of((n % 2) as u16));
                        send_all(&mut client, &framed(&body));
                        assert!(client.is_closed_by_peer(), "key {} version {version}", api.key);
                    }
                }
            }
        }
    }
    besieged.assert_memory(0, false);
    besieged.end();
}

#[test]
fn random_bytes_from_a_seed_are_answered_or_end_the_connection() {
    let besieged = Besieged::start();
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let valid = [
        frame(PRODUCE_VERSION, 1, &produce_request("nowhere", 0, 1, batch(1, 3, 200))),
        frame(FETCH_VERSION, 1, &fetch_request("witness", 0, 0, 1000, 0)),
    ];
    for round in 0..1500 {
        let mut bytes = vec![0; random.usize(1..3000)];
        random.fill(&mut bytes);
        let bytes = match round % 4 {
            0 => bytes,
            1 => framed(&bytes),
            2 => {
                let api = &APIS[random.usize(..APIS.len())];
                let version = random.i16(api.accepted_min - 1..=api.max + 1);
                // Small numbers make deeper nesting than large ones.
                bytes.iter_mut().for_each(|byte| *byte &= [1, 3, 0xff][round / 4 % 3]);
                let body = [head(api.key, version, random.bool()), bytes].concat();
                framed(&body)
            }
            _ => {
                let mut bytes = valid[random.usize(..valid.len())].to_vec();
                for _ in 0..random.usize(1..6) {
                    let at = random.usize(4..bytes.len());
                    bytes[at] ^= 1 << random.u32(..8);
                }
                bytes
            }
        };
        let mut client = Client::connect(besieged.broker.port_of(random.u16(..2)));
        send_all(&mut client, &bytes);
        assert!(client.is_closed_by_peer(), "round {round}");
    }
    besieged.assert_memory(0, false);
    besieged.end();
}
