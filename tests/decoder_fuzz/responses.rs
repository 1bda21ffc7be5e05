//! The answers that our own client decodes, under a hostile server.

use crate::allocations::peak_of;
use crate::codec::response_codec;
use crate::generate::{self, STYLES, Style};
use crate::{MEMORY_FIXED, MEMORY_PER_BYTE_MAX, mutate};
use bytes::Bytes;
use corelog::wire::guard::responses::RESPONSES;
use corelog::wire::guard::schema::Response;
use corelog::wire::guard::{GuardError, check_response, walk_response};
use fastrand::Rng;

const API_VERSIONS: i16 = 18;

fn layouts() -> impl Iterator<Item = (&'static Response, i16)> {
    RESPONSES
        .iter()
        .flat_map(|response| (response.version_min..=response.version_max).map(move |version| (response, version)))
}

/// A correlation id, and from the first flexible version on an empty section of tags, but for ApiVersions.
fn header(response: &Response, version: i16) -> Vec<u8> {
    let tags: &[u8] = if response.is_flexible(version) && response.key != API_VERSIONS { &[0] } else { &[] };
    [&7i32.to_be_bytes()[..], tags].concat()
}

#[test]
fn the_guard_and_the_codec_agree_on_every_answer() {
    for (response, version) in layouts() {
        let codec = response_codec(response.key).expect("listed in tests/decoder_fuzz/codec.rs");
        assert!(codec.version_min <= version && version <= codec.version_max, "{} v{version}", response.name);
        for seed in 0..100 {
            let style = STYLES[seed as usize % STYLES.len()];
            let body = generate::body(response, version, style, &mut Rng::with_seed(seed)).bytes;
            let frame = Bytes::from([header(response, version), body.clone()].concat());
            let context = format!("{} v{version} {style:?} {frame:02x?}", response.name);
            assert_eq!(walk_response(response.key, version, &frame), Ok(frame.len()), "{context}");
            assert_eq!((codec.again)(body.clone().into(), version).as_deref(), Ok(&body[..]), "{context}");
            assert_eq!((codec.decode)(frame.clone(), version), Ok(frame.len()), "{context}");
            for cut in 0..frame.len() {
                assert!(check_response(response.key, version, &frame[..cut]).is_err(), "cut at {cut} of {context}");
            }
        }
    }
}

#[test]
fn no_length_in_an_answer_may_be_larger_than_what_follows() {
    for (response, version) in layouts() {
        let body = generate::body(response, version, Style::Full, &mut Rng::with_seed(2));
        let header = header(response, version);
        for length in &body.lengths {
            let lie = match (response.is_flexible(version), length.width) {
                (true, _) => generate::uvarint(1 << 31),
                (false, 2) => i16::MAX.to_be_bytes().to_vec(),
                (false, _) => i32::MAX.to_be_bytes().to_vec(),
            };
            let mut frame = [&header[..], &body.bytes].concat();
            let at = header.len() + length.position;
            frame.splice(at..at + length.width, lie);
            let (refused, memory) = peak_of(|| check_response(response.key, version, &frame));
            let context = format!("{} v{version}, {refused:?} at {at}", response.name);
            assert!(matches!(refused, Err(GuardError::Malformed { .. })), "{context}");
            assert_eq!(memory, 0, "the guard allocates: {context}");
        }
    }
}

/// Answers broken at random: what passes the guard is decoded within the memory that the bytes are worth.
#[test]
fn what_passes_the_guard_costs_no_more_than_its_bytes() {
    let corpus: Vec<(i16, i16, Vec<u8>)> = layouts()
        .flat_map(|(response, version)| {
            STYLES.into_iter().map(move |style| {
                let body = generate::body(response, version, style, &mut Rng::with_seed(3)).bytes;
                (response.key, version, [header(response, version), body].concat())
            })
        })
        .collect();
    let mut decoded = 0;
    for iteration in 0..20_000 {
        let mut rng = Rng::with_seed(iteration);
        let (key, version, mut frame) = corpus[rng.usize(..corpus.len())].clone();
        for _ in 0..rng.usize(1..4) {
            mutate::mutate(&mut frame, &corpus[rng.usize(..corpus.len())].2, &mut rng);
        }
        let Ok(walked) = walk_response(key, version, &frame) else { continue };
        let decode = response_codec(key).expect("listed").decode;
        let (bytes, length) = (Bytes::from(frame), walked);
        let (outcome, memory) = peak_of(|| decode(bytes.clone(), version));
        assert!(outcome.as_ref().map_or(true, |taken| *taken == length), "iteration {iteration}: {outcome:?}");
        assert!(memory <= MEMORY_FIXED + MEMORY_PER_BYTE_MAX * bytes.len(), "iteration {iteration}: {memory} bytes");
        decoded += usize::from(outcome.is_ok());
    }
    assert!(decoded > 1000, "only {decoded} were decoded");
}
