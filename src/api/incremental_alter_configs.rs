//! IncrementalAlterConfigs (key 44), versions 0 and 1 (KIP-339): sets, deletes, appends to and subtracts from single
//! settings of a topic, of this node, or (empty name) the dynamic ones of all nodes.
//!
//! Refusals, the choice of shards and the time of effect are as with AlterConfigs. An operation that does not exist is
//! refused with INVALID_REQUEST for topics too (there Kafka fails with UNKNOWN_SERVER_ERROR).
//!
//! Omitted: levels of a broker's loggers (KIP-412), refused with INVALID_REQUEST and the reason.

use super::admin;
use super::config_changes::{Alteration, Mode};
use super::context::ShardContext;
use super::registry::Served;
use super::{Outcome, RequestInfo};
use bytes::Bytes;
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{ApiKey, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};
use std::rc::Rc;

pub const SERVED: Served =
    Served { key: ApiKey::IncrementalAlterConfigs as i16, advertised_min: 0, accepted_min: 0, max: 1, handle };

fn handle(context: &Rc<ShardContext>, info: &RequestInfo, body: Bytes) -> Outcome {
    info.decoded(body, |request: IncrementalAlterConfigsRequest| {
        let alteration = Alteration::start(context, Mode::Incremental, request.resources, request.validate_only);
        let info = info.clone();
        Outcome::Wait(Box::pin(async move {
            let responses = alteration.results().await.into_iter().map(|altered| {
                AlterConfigsResourceResponse::default()
                    .with_error_code(admin::code(altered.error.as_ref()))
                    .with_error_message(admin::message(altered.error.as_ref()))
                    .with_resource_type(altered.resource_type)
                    .with_resource_name(altered.resource_name)
            });
            info.answer(&IncrementalAlterConfigsResponse::default().with_responses(responses.collect()))
        }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::config_changes::operation::{APPEND, DELETE, SET, SUBTRACT};
    use crate::api::config_entries::NO_LOGGERS;
    use crate::api::testing::{self, Broker};
    use crate::controller::handle::{Command, ConfigOp};
    use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
    use kafka_protocol::protocol::StrBytes;

    type Change = (&'static str, i8, Option<&'static str>);

    fn resource(kind: i8, name: &'static str, changes: &[Change]) -> AlterConfigsResource {
        let change = |(name, operation, value): &Change| {
            AlterableConfig::default()
                .with_name(StrBytes::from_static_str(name))
                .with_config_operation(*operation)
                .with_value(value.map(StrBytes::from_static_str))
        };
        AlterConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(StrBytes::from_static_str(name))
            .with_configs(changes.iter().map(change).collect())
    }

    fn ask(version: i16, resources: Vec<AlterConfigsResource>, control: impl FnMut(Command)) -> Vec<(i16, String)> {
        let asked = IncrementalAlterConfigsRequest::default().with_resources(resources);
        let response = Broker::with(testing::image(1)).ask_with(version, &asked, control);
        let told = |answer: AlterConfigsResourceResponse| {
            (answer.error_code, answer.error_message.map(|text| text.to_string()).unwrap_or_default())
        };
        response.responses.into_iter().map(told).collect()
    }

    #[test]
    fn every_operation_reaches_the_controller_in_every_version() {
        let changes =
            [("a", SET, Some("1")), ("b", DELETE, None), ("c", APPEND, Some("x")), ("d", SUBTRACT, Some("y"))];
        for version in 0..=SERVED.max {
            let told = ask(version, vec![resource(2, "orders", &changes)], |command| {
                let Command::AlterConfigs { changes, reply, .. } = command else { panic!("another command") };
                assert!(!changes[0].replace_all);
                let seen: Vec<_> = changes[0].ops.iter().map(|(name, op)| format!("{name} {op:?}")).collect();
                assert_eq!(seen, ["a Set(\"1\")", "b Delete", "c Append(\"x\")", "d Subtract(\"y\")"]);
                assert!(matches!(changes[0].ops[1].1, ConfigOp::Delete));
                assert!(reply.send(vec![Ok(())]).is_ok());
            });
            assert_eq!(told, [(0, String::new())]);
        }
    }

    #[test]
    fn unsound_requests_never_reach_the_controller() {
        let resources = vec![
            resource(2, "a", &[("x", 9, Some("1"))]),
            resource(2, "b", &[("x", SET, Some("1")), ("x", DELETE, None)]),
            resource(2, "c", &[("x", APPEND, None)]),
            resource(8, "0", &[("root", SET, Some("DEBUG"))]),
            resource(8, "", &[]),
            resource(32, "g", &[]),
        ];
        let told = ask(1, resources, |_| panic!("a command that was not expected"));
        let expected = [
            "Unknown operations type 9",
            "Error due to duplicate config keys",
            "Null value not supported for : x",
            NO_LOGGERS,
            "Node id must be an integer, but it is: ",
            "Unknown resource type 32",
        ];
        assert_eq!(told, expected.map(|message| (42, message.to_string())));
    }
}
