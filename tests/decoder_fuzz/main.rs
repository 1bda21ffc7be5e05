//! The whole way of a request from received bytes to a decoded message, under hostile input.
//!
//! Random frames are made along the guard's tables for every API and version, then broken in every way that a decoder
//! fears. Whatever comes of it, nothing may panic, take more memory than a stated multiple of the bytes received, or
//! take long. No coverage feedback is needed to reach deep: the frames are valid to begin with.
//!
//! `cargo test --test decoder_fuzz` fuzzes for 5 seconds. Longer, from another seed:
//!
//! ```text
//! CORELOG_FUZZ_SECONDS=3600 CORELOG_FUZZ_SEED=7 cargo test --release --test decoder_fuzz -- --nocapture
//! ```
//!
//! A failure names its iteration; `CORELOG_FUZZ_SEED=… CORELOG_FUZZ_ITERATION=…` runs that one alone.

mod allocations;
mod codec;
mod generate;
mod mutate;
mod responses;

use allocations::peak_of;
use bytes::{BufMut, Bytes, BytesMut};
use codec::codec;
use corelog::base::limits::REQUEST_ELEMENTS_MAX;
use corelog::wire::frame::{decode_header, next_frame};
use corelog::wire::guard::schema::Request;
use corelog::wire::guard::{self, Fault, GuardError, REQUESTS};
use fastrand::Rng;
use generate::{STYLES, Style};
use kafka_protocol::messages::ApiKey;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: allocations::Counting = allocations::Counting;

/// Decoding takes at most so many bytes of memory for each byte of the frame: a structure of two bytes with one
/// unknown tagged field of two bytes becomes about 480.
const MEMORY_PER_BYTE_MAX: usize = 128;

/// What decoding may take however short the frame, in bytes: an error with its text.
const MEMORY_FIXED: usize = 4096;

/// What no frame's decoding exceeds, in bytes: `REQUEST_ELEMENTS_MAX` elements of the largest kind.
const MEMORY_MAX: usize = 64 << 20;

/// Bound on the processor time of one input, in a debug build on a busy machine.
const TIME_FIXED_MAX: Duration = Duration::from_millis(200);
const TIME_PER_BYTE_MAX: Duration = Duration::from_micros(2);

const FRAME_BYTES_MAX: usize = 1 << 20;

/// Every API and version that the guard knows.
fn layouts() -> impl Iterator<Item = (&'static Request, i16)> {
    REQUESTS
        .iter()
        .flat_map(|request| (request.version_min..=request.version_max).map(move |version| (request, version)))
}

#[test]
fn the_guard_and_the_codec_agree_on_every_request() {
    for (request, version) in layouts() {
        let codec = codec(request.key).expect("listed in tests/decoder_fuzz/codec.rs");
        assert!(codec.version_min <= version && version <= codec.version_max, "{} v{version}", request.name);
        for seed in 0..100 {
            let style = STYLES[seed as usize % STYLES.len()];
            let body = generate::body(request, version, style, &mut Rng::with_seed(seed));
            let bytes = Bytes::from(body.bytes);
            let context = format!("{} v{version} {style:?} {bytes:02x?}", request.name);
            assert_eq!(guard::walk(request.key, version, &bytes), Ok(bytes.len()), "{context}");
            assert_eq!((codec.again)(bytes.clone(), version).as_ref(), Ok(&bytes), "{context}");
            assert_eq!((codec.decode)(bytes.clone(), version), Ok(bytes.len()), "{context}");
            for cut in 0..bytes.len() {
                assert!(guard::check(request.key, version, &bytes[..cut]).is_err(), "cut at {cut} of {context}");
            }
        }
    }
}

/// The codec takes null in all versions if it does in one; Kafka, and the guard, go by the version.
#[test]
fn null_is_accepted_exactly_where_it_may_be() {
    for (request, version) in layouts() {
        let codec = codec(request.key).expect("listed");
        let body = generate::body(request, version, Style::Full, &mut Rng::with_seed(1));
        for length in &body.lengths {
            let mut bytes = body.bytes.clone();
            bytes.splice(length.position..length.end, generate::null(request.is_flexible(version), length.width));
            let bytes = Bytes::from(bytes);
            let context = format!("{} v{version}, null at {}", request.name, length.position);
            let guarded = guard::walk(request.key, version, &bytes);
            assert_eq!(guarded.is_ok(), length.nullable, "{context}: {guarded:?}");
            assert_eq!((codec.decode)(bytes, version).is_ok(), length.nullable_ever, "{context}");
        }
    }
}

#[test]
fn no_length_may_be_larger_than_what_follows() {
    let mut arrays = 0;
    for (request, version) in layouts() {
        let body = generate::body(request, version, Style::Full, &mut Rng::with_seed(2));
        for length in &body.lengths {
            let lies: Vec<Vec<u8>> = match (request.is_flexible(version), length.width) {
                (true, _) => [u32::MAX, 1 << 31, 1 << 20].into_iter().map(generate::uvarint).collect(),
                (false, 2) => [i16::MAX, i16::MIN, -2].map(|lie| lie.to_be_bytes().to_vec()).to_vec(),
                (false, _) => [i32::MAX, i32::MIN, -2, 1 << 20].map(|lie| lie.to_be_bytes().to_vec()).to_vec(),
            };
            for lie in lies {
                let mut bytes = body.bytes.clone();
                bytes.splice(length.position..length.position + length.width, lie);
                let (refused, memory) = peak_of(|| guard::check(request.key, version, &bytes));
                let context = format!("{} v{version}, {:?} at {}", request.name, refused, length.position);
                assert!(matches!(refused, Err(GuardError::Malformed { .. })), "{context}");
                assert_eq!(memory, 0, "the guard allocates: {context}");
            }
            arrays += usize::from(length.is_array);
        }
    }
    assert!(arrays > 200, "only {arrays} arrays were tried");
}

#[test]
fn the_elements_of_all_arrays_together_are_bounded() {
    // Metadata v1: topics of empty names, of two bytes each.
    let body = |count: usize| [&(count as i32).to_be_bytes()[..], &vec![0; 2 * count]].concat();
    assert_eq!(guard::check(3, 1, &body(REQUEST_ELEMENTS_MAX)), Ok(()));
    let refused = guard::check(3, 1, &body(REQUEST_ELEMENTS_MAX + 1));
    assert!(matches!(refused, Err(GuardError::Malformed { fault: Fault::TooManyElements, .. })), "{refused:?}");
}

/// Kafka refuses them, compact or not: names come back in answers and messages, where their length would count often.
#[test]
fn strings_are_no_longer_than_the_older_encoding_can_say() {
    // Metadata v9: one topic with a long name.
    let body = |length: usize| {
        [vec![2], generate::uvarint(length as u32 + 1), vec![b'x'; length], vec![0, 0, 0, 0, 0]].concat()
    };
    let longest = Bytes::from(body(32_767));
    assert_eq!(guard::walk(3, 9, &longest), Ok(longest.len()));
    let refused = guard::check(3, 9, &body(32_768));
    assert!(matches!(refused, Err(GuardError::Malformed { fault: Fault::TooLong, .. })), "{refused:?}");
}

#[test]
fn the_dearest_requests_that_pass_the_guard_stay_within_the_memory_bound() {
    let elements = REQUEST_ELEMENTS_MAX as u32;
    // Metadata v9: topics of an empty name and one unknown tagged field without bytes; each counts as five elements.
    let tagged_topics =
        [generate::uvarint(elements / 5 + 1), [1, 1, 100, 0].repeat(elements as usize / 5), vec![1, 0, 0, 0]];
    // LeaveGroup v5: members with nothing in them.
    let members = [vec![1], generate::uvarint(elements + 1), [1, 1, 1, 0].repeat(elements as usize), vec![0]];
    // DescribeGroups v5: empty strings.
    let strings = [generate::uvarint(elements + 1), vec![1; elements as usize], vec![0, 0]];
    for (key, version, body) in [(3, 9, tagged_topics.concat()), (13, 5, members.concat()), (15, 5, strings.concat())] {
        let body = Bytes::from(body);
        assert_eq!(guard::walk(key, version, &body), Ok(body.len()), "API {key}");
        let decode = codec(key).expect("listed").decode;
        let (decoded, memory) = peak_of(|| decode(body.clone(), version));
        assert_eq!(decoded, Ok(body.len()), "API {key}");
        assert!(memory <= MEMORY_PER_BYTE_MAX * body.len(), "API {key}: {memory} bytes for {}", body.len());
        assert!(memory <= MEMORY_MAX, "API {key}: {memory} bytes");
    }
}

#[test]
fn unknown_apis_and_versions_are_refused() {
    for key in [-1, i16::MIN, 4, 127, 128, 255, i16::MAX] {
        assert_eq!(guard::check(key, 0, &[]), Err(GuardError::UnknownApi { key }));
    }
    for version in [-1, 2, 12, i16::MAX, i16::MIN] {
        let refused = Err(GuardError::UnsupportedVersion { api: "Produce", version });
        assert_eq!(guard::check(0, version, &[]), refused);
    }
}

/// How far one input came.
#[derive(Clone, Copy, Default)]
struct Reach {
    guarded: u64,
    passed: u64,
    decoded: u64,
}

#[test]
fn fuzz_the_decoder() {
    let setting = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seed = setting("CORELOG_FUZZ_SEED").unwrap_or(1);
    let only = setting("CORELOG_FUZZ_ITERATION");
    let until = Instant::now() + Duration::from_secs(setting("CORELOG_FUZZ_SECONDS").unwrap_or(5));
    let corpus = corpus();
    let mut reach = BTreeMap::new();
    let mut iteration = only.unwrap_or(0);
    while Instant::now() < until {
        allocations::set_label(iteration);
        let mut rng = Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(iteration));
        let input = input(&corpus, &mut rng);
        if let Err(story) = try_input(&input, &mut rng, &mut reach) {
            panic!("seed {seed}, iteration {iteration}: {story}\ninput: {}", hex(&input));
        }
        iteration += 1;
        if only.is_some() {
            return;
        }
    }
    println!("seed {seed}: {iteration} inputs");
    for (key, reach) in &reach {
        println!(
            "API {key}: {} bodies, {} passed the guard, {} were decoded",
            reach.guarded, reach.passed, reach.decoded
        );
    }
    for request in &REQUESTS {
        let reach = reach.get(&request.key).copied().unwrap_or_default();
        assert!(reach.decoded > 0 && reach.passed < reach.guarded, "{} was hardly tried: run longer", request.name);
    }
}

/// Whole frames, sizes included, of every API and version in every style.
fn corpus() -> Vec<Vec<u8>> {
    let mut corpus = Vec::new();
    for (request, version) in layouts() {
        for (seed, style) in STYLES.into_iter().enumerate() {
            let body = generate::body(request, version, style, &mut Rng::with_seed(seed as u64));
            corpus.push(frame(request.key, version, &body.bytes));
        }
    }
    corpus
}

fn frame(key: i16, version: i16, body: &[u8]) -> Vec<u8> {
    let api = ApiKey::try_from(key).expect("an API of the codec");
    let mut frame = BytesMut::new();
    frame.put_i32(0);
    frame.put_i16(key);
    frame.put_i16(version);
    frame.put_i32(7);
    frame.put_slice(&[0, 4, b'f', b'u', b'z', b'z']);
    if api.request_header_version(version) >= 2 {
        frame.put_u8(0);
    }
    frame.put_slice(body);
    let size = frame.len() as i32 - 4;
    frame[..4].copy_from_slice(&size.to_be_bytes());
    frame.to_vec()
}

/// What one connection sends: one or two frames, each with some changes.
fn input(corpus: &[Vec<u8>], rng: &mut Rng) -> Vec<u8> {
    let mut input = Vec::new();
    for _ in 0..1 + usize::from(rng.u8(..4) == 0) {
        let mut frame = corpus[rng.usize(..corpus.len())].clone();
        let other = &corpus[rng.usize(..corpus.len())];
        for _ in 0..rng.usize(..5) {
            mutate::mutate(&mut frame, other, rng);
        }
        input.extend(frame);
    }
    input
}

/// Sends `input` through the whole decoder, cut as a network would.
fn try_input(input: &[u8], rng: &mut Rng, reach: &mut BTreeMap<i16, Reach>) -> Result<(), String> {
    let mut buffer = BytesMut::with_capacity(input.len());
    let mut rest = input;
    while !rest.is_empty() {
        let (now, later) = rest.split_at(rng.usize(1..=rest.len()));
        buffer.put_slice(now);
        rest = later;
        loop {
            match next_frame(&mut buffer, FRAME_BYTES_MAX) {
                Ok(Some(frame)) => try_frame(frame, reach)?,
                Ok(None) => break,
                Err(_) => return Ok(()),
            }
        }
    }
    Ok(())
}

fn try_frame(frame: Bytes, reach: &mut BTreeMap<i16, Reach>) -> Result<(), String> {
    let length = frame.len();
    let before = thread_time();
    let (outcome, memory) = peak_of(|| decode_frame(frame));
    let time = thread_time() - before;
    let memory_max = (MEMORY_FIXED + MEMORY_PER_BYTE_MAX * length).min(MEMORY_MAX);
    if memory > memory_max {
        return Err(format!("decoding {length} bytes took {memory} bytes of memory, more than {memory_max}"));
    }
    if time > TIME_FIXED_MAX + TIME_PER_BYTE_MAX * length as u32 {
        return Err(format!("decoding {length} bytes took {time:?}"));
    }
    if let Some((key, passed, decoded)) = outcome? {
        let reach: &mut Reach = reach.entry(key).or_default();
        reach.guarded += 1;
        reach.passed += u64::from(passed);
        reach.decoded += u64::from(decoded);
    }
    Ok(())
}

/// As a connection does it. Which API was met, whether its guard and then its decoder were content.
fn decode_frame(frame: Bytes) -> Result<Option<(i16, bool, bool)>, String> {
    let Ok(incoming) = decode_header(frame) else {
        return Ok(None);
    };
    let Some(codec) = codec(incoming.key) else {
        return Ok(None);
    };
    let Ok(walked) = guard::walk(incoming.key, incoming.version, &incoming.body) else {
        return Ok(Some((incoming.key, false, false)));
    };
    match (codec.decode)(incoming.body, incoming.version) {
        Ok(decoded) if decoded != walked => Err(format!("the guard walked {walked} bytes, the codec {decoded}")),
        decoded => Ok(Some((incoming.key, true, decoded.is_ok()))),
    }
}

/// Processor time of this thread, which other work on the machine does not lengthen.
fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a local that outlives the call.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(result, 0, "every Linux has this clock");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
