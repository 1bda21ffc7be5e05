//! DescribeConfigs (key 32), versions 1 to 4.
//!
//! - Topics: all settings, those of the topic itself over the broker's (which include the dynamic ones).
//! - Brokers: settings are the node's, so each shard answers for every shard of its node; the empty name asks for the
//!   dynamic settings of all nodes.
//! - Synonyms, and from version 3 on types and documentation, as far as they are asked for (KIP-226, KIP-569).
//! - A kind of resource that does not exist refuses the whole request with INVALID_REQUEST.
//! - A resource that is named again is described again, but only `CONFIGS_DESCRIBED_AGAIN_MAX` times in a request:
//!   five bytes of it could ask for a hundred thousand each. Further ones are refused with INVALID_REQUEST.
//!
//! Omitted: version 0 (removed by KIP-896). Loggers of a broker (KIP-412): there is no registry of loggers to list, so
//! they are refused with INVALID_REQUEST and the reason. Client metrics are refused as in a Kafka of ZooKeeper mode.

use super::admin;
use super::config_entries::{NO_LOGGERS, ResourceType, described, invalid, is_of_this_node};
use super::context::ShardContext;
use super::registry::Served;
use super::{Outcome, RequestInfo};
use crate::base::config::describe::{ConfigEntry, describe_broker, describe_broker_defaults, describe_topic};
use crate::base::limits::CONFIGS_DESCRIBED_AGAIN_MAX;
use crate::cluster::topic_name;
use crate::controller::handle::{AdminError, AdminResult};
use crate::wire::errors::message_of;
use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::DescribeConfigsResult;
use kafka_protocol::messages::{ApiKey, DescribeConfigsRequest, DescribeConfigsResponse};
use kafka_protocol::protocol::StrBytes;
use std::borrow::Cow;
use std::collections::HashSet;
use std::rc::Rc;

pub const SERVED: Served =
    Served { key: ApiKey::DescribeConfigs as i16, advertised_min: 1, accepted_min: 1, max: 4, handle };

fn handle(context: &Rc<ShardContext>, info: &RequestInfo, body: Bytes) -> Outcome {
    info.decoded(body, |request: DescribeConfigsRequest| {
        if request.resources.iter().any(|resource| ResourceType::of(resource.resource_type).is_none()) {
            // Kafka's own words for an error that has none.
            let error = invalid(message_of(ResponseError::InvalidRequest));
            let refused = request.resources.into_iter().map(|resource| result(&resource).with_error(&error));
            return info.reply(&DescribeConfigsResponse::default().with_results(refused.collect()));
        }
        let (context, info) = (Rc::clone(context), info.clone());
        // Told as of the answer's turn: a client that pipelines its requests sees what it altered just before.
        Outcome::Wait(Box::pin(async move {
            let mut repeats = Repeats::default();
            let results = request.resources.iter().map(|resource| match repeats.admit(resource) {
                Ok(()) => describe(&context, &request, resource),
                Err(error) => result(resource).with_error(&error),
            });
            info.answer(&DescribeConfigsResponse::default().with_results(results.collect()))
        }))
    })
}

/// What a request has named so far.
#[derive(Default)]
struct Repeats<'a> {
    seen: HashSet<(i8, Cow<'a, str>)>,
    described_again: usize,
}

impl<'a> Repeats<'a> {
    fn admit(&mut self, resource: &'a DescribeConfigsResource) -> AdminResult<()> {
        let name = resource.resource_name.as_str();
        // A broker's id has as many spellings as one likes.
        let name = match name.parse::<i32>() {
            Ok(id) if ResourceType::of(resource.resource_type) == Some(ResourceType::Broker) => id.to_string().into(),
            _ => Cow::Borrowed(name),
        };
        if !self.seen.insert((resource.resource_type, name)) {
            self.described_again += 1;
        }
        match self.described_again {
            ..=CONFIGS_DESCRIBED_AGAIN_MAX => Ok(()),
            _ => Err(invalid("The request names the same resources too often.")),
        }
    }
}

fn describe(
    context: &ShardContext,
    request: &DescribeConfigsRequest,
    resource: &DescribeConfigsResource,
) -> DescribeConfigsResult {
    let entries = match entries(context, resource) {
        Ok(entries) => entries,
        Err(error) => return result(resource).with_error(&error),
    };
    let wanted: HashSet<&str> = resource.configuration_keys.iter().flatten().map(|name| name.as_str()).collect();
    let is_wanted = |entry: &ConfigEntry| wanted.is_empty() || wanted.contains(entry.name.as_str());
    let told = |entry| described(entry, request.include_synonyms, request.include_documentation);
    result(resource).with_configs(entries.into_iter().filter(is_wanted).map(told).collect())
}

fn entries(context: &ShardContext, resource: &DescribeConfigsResource) -> AdminResult<Vec<ConfigEntry>> {
    let name = resource.resource_name.as_str();
    match ResourceType::of(resource.resource_type) {
        Some(ResourceType::Topic) => topic_entries(context, name),
        Some(ResourceType::Broker) if name.is_empty() => Ok(describe_broker_defaults(&context.config())),
        Some(ResourceType::Broker) => {
            check_broker(context, name, " or empty string,")?;
            Ok(describe_broker(&context.config()))
        }
        Some(ResourceType::BrokerLogger) if name.is_empty() => Err(invalid("Broker id must not be empty")),
        Some(ResourceType::BrokerLogger) => {
            check_broker(context, name, "")?;
            Err(invalid(NO_LOGGERS))
        }
        Some(ResourceType::ClientMetrics) if name.is_empty() => {
            Err(invalid("Client metrics subscription name must not be empty"))
        }
        Some(ResourceType::ClientMetrics) => {
            Err(invalid("Config type client-metrics is only supported on KRaft clusters"))
        }
        None => Err(invalid(message_of(ResponseError::InvalidRequest))),
    }
}

fn topic_entries(context: &ShardContext, name: &str) -> AdminResult<Vec<ConfigEntry>> {
    topic_name::check(name).map_err(|reason| admin::refusal(ResponseError::InvalidTopicException, reason))?;
    let image = context.image();
    // Without an error, and here, Kafka's message is empty where elsewhere it is null.
    let unknown = || admin::refusal(ResponseError::UnknownTopicOrPartition, "");
    let topic = image.topic(name).ok_or_else(unknown)?;
    describe_topic(&context.config(), &topic.settings)
        .map_err(|error| admin::refusal(ResponseError::InvalidConfig, error.to_string()))
}

fn check_broker(context: &ShardContext, name: &str, alternative: &str) -> AdminResult<()> {
    match is_of_this_node(context, name) {
        Some(true) => Ok(()),
        Some(false) => {
            Err(invalid(format!("Unexpected broker id, expected {}{alternative} but received {name}", context.broker)))
        }
        None => Err(invalid(format!("Broker id must be an integer, but it is: {name}"))),
    }
}

fn result(resource: &DescribeConfigsResource) -> DescribeConfigsResult {
    DescribeConfigsResult::default()
        .with_error_message(Some(StrBytes::new()))
        .with_resource_type(resource.resource_type)
        .with_resource_name(resource.resource_name.clone())
}

trait WithError {
    fn with_error(self, error: &AdminError) -> Self;
}

impl WithError for DescribeConfigsResult {
    fn with_error(self, error: &AdminError) -> Self {
        self.with_error_code(admin::code(Some(error))).with_error_message(admin::message(Some(error)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::testing::{self, Broker, add_topic};
    use crate::cluster::image::Topic;
    use kafka_protocol::messages::describe_configs_response::DescribeConfigsResourceResult;
    use std::sync::Arc;

    fn resource(kind: i8, name: &'static str, keys: &[&'static str]) -> DescribeConfigsResource {
        let keys = (!keys.is_empty()).then(|| keys.iter().map(|key| StrBytes::from_static_str(key)).collect());
        DescribeConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(StrBytes::from_static_str(name))
            .with_configuration_keys(keys)
    }

    fn request(resources: Vec<DescribeConfigsResource>) -> DescribeConfigsRequest {
        DescribeConfigsRequest::default().with_resources(resources)
    }

    fn named<'a>(result: &'a DescribeConfigsResult, name: &str) -> &'a DescribeConfigsResourceResult {
        result.configs.iter().find(|entry| &*entry.name == name).unwrap_or_else(|| panic!("{name} is not described"))
    }

    fn error(result: &DescribeConfigsResult) -> (i16, Option<&str>) {
        assert!(result.configs.is_empty());
        (result.error_code, result.error_message.as_deref())
    }

    /// A node of two shards with one topic that sets `retention.ms`, under a broker that sets `log.segment.bytes`.
    fn broker() -> Broker {
        let mut image = testing::image(2);
        add_topic(&mut image, "orders", &[0]);
        let mut topic: Topic = (*image.topics["orders"]).clone();
        topic.settings.insert("retention.ms".into(), "1000".into());
        image.topics.insert("orders".into(), Arc::new(topic));
        image.broker_defaults.insert("log.segment.bytes".into(), "20000000".into());
        let mut broker = Broker::with(image);
        broker.configure(&[("log.segment.bytes", "30000000")]);
        broker
    }

    #[test]
    fn a_topics_settings_are_told_with_their_sources_in_every_version() {
        let broker = broker();
        for version in SERVED.accepted_min..=SERVED.max {
            let asked = request(vec![resource(2, "orders", &[])])
                .with_include_synonyms(true)
                .with_include_documentation(version >= 3);
            let response = broker.ask(version, &asked);
            let result = &response.results[0];
            assert_eq!((result.error_code, result.resource_type, &*result.resource_name), (0, 2, "orders"));
            let own = named(result, "retention.ms");
            assert_eq!((own.value.as_deref(), own.config_source, own.read_only), (Some("1000"), 1, false));
            let inherited = named(result, "segment.bytes");
            assert_eq!((inherited.value.as_deref(), inherited.config_source), (Some("20000000"), 3));
            let synonyms: Vec<_> =
                inherited.synonyms.iter().map(|s| (&*s.name, s.value.as_deref(), s.source)).collect();
            let name = "log.segment.bytes";
            let expected = [(name, Some("20000000"), 3), (name, Some("30000000"), 4), (name, Some("1073741824"), 5)];
            assert_eq!(synonyms, expected);
            assert_eq!(inherited.config_type, if version >= 3 { 3 } else { 0 });
            let documented = inherited.documentation.as_ref().is_some_and(|text| !text.is_empty());
            assert_eq!(documented, version >= 3);
            assert_eq!(result.error_message.as_deref(), Some(""), "empty, as Kafka has it");
        }
    }

    #[test]
    fn only_what_is_asked_for_is_told() {
        let broker = broker();
        let asked = request(vec![resource(2, "orders", &["retention.ms", "no.such.setting"])]);
        let response = broker.ask(4, &asked);
        let names: Vec<_> = response.results[0].configs.iter().map(|entry| &*entry.name).collect();
        assert_eq!(names, ["retention.ms"]);
        let entry = named(&response.results[0], "retention.ms");
        assert!(entry.synonyms.is_empty() && entry.documentation.is_none());
    }

    #[test]
    fn every_shard_answers_for_its_node() {
        let broker = broker();
        for name in ["0", "1"] {
            let response = broker.ask(4, &request(vec![resource(4, name, &[])]));
            let entry = named(&response.results[0], "log.segment.bytes");
            assert_eq!((entry.value.as_deref(), entry.config_source), (Some("20000000"), 3));
            assert!(named(&response.results[0], "broker.id").read_only);
        }
        let response = broker.ask(4, &request(vec![resource(4, "", &[])]));
        let names: Vec<_> = response.results[0].configs.iter().map(|entry| &*entry.name).collect();
        assert_eq!(names, ["log.segment.bytes"]);
    }

    #[test]
    fn what_cannot_be_described_says_why() {
        let broker = broker();
        let cases = [
            (2, "nobody", 3, Some("")),
            (
                2,
                "a b",
                17,
                Some(
                    "Topic name is invalid: 'a b' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'",
                ),
            ),
            (2, "", 17, Some("Topic name is invalid: the empty string is not allowed")),
            (4, "2", 42, Some("Unexpected broker id, expected 0 or empty string, but received 2")),
            (4, "one", 42, Some("Broker id must be an integer, but it is: one")),
            (8, "", 42, Some("Broker id must not be empty")),
            (8, "1000", 42, Some("Unexpected broker id, expected 0 but received 1000")),
            (8, "0", 42, Some(NO_LOGGERS)),
            (16, "", 42, Some("Client metrics subscription name must not be empty")),
            (16, "x", 42, Some("Config type client-metrics is only supported on KRaft clusters")),
        ];
        let resources = cases.iter().map(|(kind, name, ..)| resource(*kind, name, &[])).collect();
        let response = broker.ask(4, &request(resources));
        for ((kind, name, code, message), result) in cases.iter().zip(&response.results) {
            assert_eq!(error(result), (*code, *message), "type {kind} {name:?}");
        }
    }

    #[test]
    fn resources_named_again_and_again_are_described_so_many_times() {
        let named = |n: usize| resource(4, ["0", "00", "+0"][n % 3], &["broker.id"]);
        let response = broker().ask(4, &request((0..CONFIGS_DESCRIBED_AGAIN_MAX + 3).map(named).collect()));
        let (told, refused) = response.results.split_at(CONFIGS_DESCRIBED_AGAIN_MAX + 1);
        assert!(told.iter().all(|result| result.configs.len() == 1));
        let message = Some("The request names the same resources too often.");
        assert!(refused.len() == 2 && refused.iter().all(|result| error(result) == (42, message)));
    }

    #[test]
    fn an_unknown_kind_refuses_the_whole_request() {
        let response = broker().ask(4, &request(vec![resource(2, "orders", &[]), resource(3, "x", &[])]));
        for result in &response.results {
            let (code, message) = error(result);
            assert!(code == 42 && message.is_some_and(|text| text.starts_with("This most likely occurs")));
        }
        assert_eq!(response.results.len(), 2);
    }
}
