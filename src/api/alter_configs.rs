//! AlterConfigs (key 33), versions 0 to 2: replaces all settings of a topic, of this node, or (empty name) the dynamic
//! ones of all nodes.
//!
//! - A resource that appears twice, a setting that appears twice in a resource, and null values are refused with
//!   INVALID_REQUEST; other resources of the request are altered all the same.
//! - Settings are the node's, so each shard accepts the id of every shard of its node.
//! - What is answered without an error is in force on every shard of this node.

use super::admin;
use super::config_changes::{Alteration, Mode, operation};
use super::context::ShardContext;
use super::registry::Served;
use super::{Outcome, RequestInfo};
use bytes::Bytes;
use kafka_protocol::messages::alter_configs_request::AlterConfigsResource;
use kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, ApiKey, incremental_alter_configs_request as incremental,
};
use std::rc::Rc;

pub const SERVED: Served =
    Served { key: ApiKey::AlterConfigs as i16, advertised_min: 0, accepted_min: 0, max: 2, handle };

fn handle(context: &Rc<ShardContext>, info: &RequestInfo, body: Bytes) -> Outcome {
    info.decoded(body, |request: AlterConfigsRequest| {
        let resources = request.resources.into_iter().map(as_incremental).collect();
        let alteration = Alteration::start(context, Mode::Replace, resources, request.validate_only);
        let info = info.clone();
        Outcome::Wait(Box::pin(async move {
            let responses = alteration.results().await.into_iter().map(|altered| {
                AlterConfigsResourceResponse::default()
                    .with_error_code(admin::code(altered.error.as_ref()))
                    .with_error_message(admin::message(altered.error.as_ref()))
                    .with_resource_type(altered.resource_type)
                    .with_resource_name(altered.resource_name)
            });
            info.answer(&AlterConfigsResponse::default().with_responses(responses.collect()))
        }))
    })
}

/// Every setting that is named is set.
fn as_incremental(resource: AlterConfigsResource) -> incremental::AlterConfigsResource {
    let set = resource.configs.into_iter().map(|config| {
        incremental::AlterableConfig::default()
            .with_name(config.name)
            .with_config_operation(operation::SET)
            .with_value(config.value)
    });
    incremental::AlterConfigsResource::default()
        .with_resource_type(resource.resource_type)
        .with_resource_name(resource.resource_name)
        .with_configs(set.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::testing::{self, Broker};
    use crate::controller::handle::{AdminError, Command, ConfigOp, ConfigResource};
    use kafka_protocol::ResponseError;
    use kafka_protocol::messages::alter_configs_request::AlterableConfig;
    use kafka_protocol::protocol::StrBytes;

    fn resource(
        kind: i8,
        name: &'static str,
        configs: &[(&'static str, Option<&'static str>)],
    ) -> AlterConfigsResource {
        let config = |(name, value): &(&'static str, Option<&'static str>)| {
            AlterableConfig::default()
                .with_name(StrBytes::from_static_str(name))
                .with_value(value.map(StrBytes::from_static_str))
        };
        AlterConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(StrBytes::from_static_str(name))
            .with_configs(configs.iter().map(config).collect())
    }

    #[test]
    fn every_version_replaces_what_is_sound_and_refuses_the_rest() {
        let twice = Some("Each resource must appear at most once.");
        let cases = [
            (resource(2, "orders", &[("retention.ms", Some("5")), ("flush.ms", Some(""))]), 0, None),
            (resource(2, "twice", &[]), 42, twice),
            (
                resource(2, "null", &[("a", None), ("b", Some("1")), ("c", None)]),
                42,
                Some("Null value not supported for : a, c"),
            ),
            (resource(2, "dup", &[("a", Some("1")), ("a", None)]), 42, Some("Error due to duplicate config keys")),
            (resource(2, "twice", &[]), 42, twice),
            (resource(4, "1", &[("max.connections", Some("5"))]), 42, Some("no")),
            (resource(4, "", &[]), 0, None),
            (resource(8, "0", &[]), 42, Some("Unknown resource type 8")),
            (resource(3, "0", &[]), 42, Some("Unknown resource type 3")),
            (
                resource(16, "m", &[]),
                42,
                Some("AlterConfigs is only supported for topics and brokers, but resource type is CLIENT_METRICS"),
            ),
        ];
        for version in 0..=SERVED.max {
            let resources = cases.iter().map(|(resource, ..)| resource.clone()).collect();
            let asked = AlterConfigsRequest::default().with_resources(resources).with_validate_only(version == 1);
            let response = Broker::with(testing::image(2)).ask_with(version, &asked, |command| {
                let Command::AlterConfigs { changes, validate_only, reply } = command else {
                    panic!("another command")
                };
                assert_eq!(validate_only, version == 1);
                assert!(changes.iter().all(|change| change.replace_all));
                let seen: Vec<_> = changes.iter().map(|change| change.resource.clone()).collect();
                let broker = |name: &str| ConfigResource::Broker(name.into());
                assert_eq!(seen, [ConfigResource::Topic("orders".into()), broker("1"), broker("")]);
                let first = &changes[0].ops;
                assert!(matches!(&first[0], (name, ConfigOp::Set(text)) if name == "retention.ms" && text == "5"));
                assert!(matches!(&first[1], (name, ConfigOp::Set(text)) if name == "flush.ms" && text.is_empty()));
                let refused = AdminError { code: ResponseError::InvalidRequest, message: Some("no".into()) };
                assert!(reply.send(vec![Ok(()), Err(refused), Ok(())]).is_ok());
            });
            assert_eq!(response.responses.len(), cases.len());
            for ((asked, code, message), told) in cases.iter().zip(&response.responses) {
                assert_eq!((told.resource_type, &told.resource_name), (asked.resource_type, &asked.resource_name));
                assert_eq!((told.error_code, told.error_message.as_deref()), (*code, *message));
            }
        }
    }

    #[test]
    fn shards_of_one_node_are_one_resource() {
        let resources = vec![resource(4, "0", &[]), resource(4, "1", &[]), resource(4, "1000", &[])];
        let asked = AlterConfigsRequest::default().with_resources(resources);
        let response = Broker::with(testing::image(2)).ask_with(2, &asked, |command| {
            let Command::AlterConfigs { changes, reply, .. } = command else { panic!("another command") };
            assert_eq!(changes.len(), 1);
            assert!(reply.send(vec![Ok(())]).is_ok());
        });
        assert_eq!(response.responses.iter().map(|told| told.error_code).collect::<Vec<_>>(), [42, 42, 0]);
    }
}
