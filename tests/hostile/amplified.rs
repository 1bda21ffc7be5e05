//! Short requests that ask for much: what they cost is bounded by what they say, not multiplied by it.

use crate::Besieged;
use crate::wire::{Client, create_topic, frame, name};
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{DescribeConfigsRequest, ListOffsetsRequest};
use kafka_protocol::protocol::{Request, StrBytes};
use std::io::Write;
use std::time::Duration;

/// Sends one request and watches the broker until the answer is there, or the connection ends.
fn ask_watched<R: Request>(besieged: &Besieged, version: i16, request: &R) {
    let bytes = frame(version, 1, request);
    println!("{} bytes of API key {}", bytes.len(), R::KEY);
    let mut client = Client::connect(besieged.broker.port);
    let asking = std::thread::spawn(move || {
        client.stream.write_all(&bytes).expect("sent");
        let _ = client.receive_frame();
    });
    while !asking.is_finished() {
        besieged.assert_memory(1, false);
        std::thread::sleep(Duration::from_millis(5));
    }
    asking.join().expect("an answer or an end");
}

/// Each partition was noted together with a copy of its topic's name: a request of 1 MB took 1.3 GB.
#[test]
fn a_long_name_is_not_copied_for_every_partition() {
    let besieged = Besieged::start();
    let partitions =
        (0..40_000).map(|index| ListOffsetsPartition::default().with_partition_index(index).with_timestamp(-1));
    let topic = ListOffsetsTopic::default().with_name(name(&"x".repeat(32_000))).with_partitions(partitions.collect());
    ask_watched(&besieged, 6, &ListOffsetsRequest::default().with_topics(vec![topic]));
    besieged.end();
}

/// Five bytes name a resource whose description takes a hundred thousand.
#[test]
fn a_resource_that_is_named_ten_thousand_times_is_not_described_as_often() {
    let besieged = Besieged::start();
    create_topic(&besieged.broker, "told", 1, &[]);
    for (kind, names) in [(2, ["told", "told"]), (4, ["0", "00"])] {
        let resource = |n: usize| {
            DescribeConfigsResource::default()
                .with_resource_type(kind)
                .with_resource_name(StrBytes::from_static_str(names[n % 2]))
                .with_configuration_keys(None)
        };
        let request = DescribeConfigsRequest::default()
            .with_resources((0..10_000).map(resource).collect())
            .with_include_synonyms(true)
            .with_include_documentation(true);
        ask_watched(&besieged, 4, &request);
    }
    besieged.end();
}
