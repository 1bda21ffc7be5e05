//! FindCoordinator (key 10), versions 0 to 6; from version 4 on for many keys at once (KIP-699).
//!
//! Groups and transactions are not served yet, so every key is refused, with INVALID_REQUEST and a message: clients do
//! not repeat that, while COORDINATOR_NOT_AVAILABLE would have them ask for ever. The API is served nevertheless because
//! librdkafka uses LZ4 only towards brokers that advertise it.
//!
//! A transactional id asked for below version 4 is refused with TRANSACTIONAL_ID_AUTHORIZATION_FAILED instead: librdkafka,
//! which asks so, repeats any other code until its own time is up, and shows our message with this one. Clients that ask
//! in batches (Java) take INVALID_REQUEST as fatal, with our message, of which the other code would rob them.

use super::admin::{self, refusal};
use super::brokers::NO_BROKER;
use super::context::ShardContext;
use super::registry::Served;
use super::{Outcome, RequestInfo};
use crate::controller::handle::AdminError;
use crate::wire::errors::message_of;
use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{ApiKey, FindCoordinatorRequest, FindCoordinatorResponse};
use kafka_protocol::protocol::StrBytes;
use std::rc::Rc;

pub const SERVED: Served =
    Served { key: ApiKey::FindCoordinator as i16, advertised_min: 0, accepted_min: 0, max: 6, handle };

/// The first version that asks for many keys.
const BATCHED_SINCE: i16 = 4;

/// A port where there is none.
const NO_PORT: i32 = -1;

fn handle(_: &Rc<ShardContext>, info: &RequestInfo, body: Bytes) -> Outcome {
    info.decoded(body, |request: FindCoordinatorRequest| {
        let error = refused(request.key_type, info.version);
        if info.version >= BATCHED_SINCE {
            let answers = request.coordinator_keys.into_iter().map(|key| batched(key, &error));
            return info.reply(&FindCoordinatorResponse::default().with_coordinators(answers.collect()));
        }
        let response = FindCoordinatorResponse::default()
            .with_error_code(admin::code(Some(&error)))
            .with_error_message(admin::message(Some(&error)))
            .with_node_id(kafka_protocol::messages::BrokerId(NO_BROKER.0))
            .with_port(NO_PORT);
        info.reply(&response)
    })
}

fn batched(key: StrBytes, error: &AdminError) -> Coordinator {
    Coordinator::default()
        .with_key(key)
        .with_error_code(admin::code(Some(error)))
        .with_error_message(admin::message(Some(error)))
        .with_node_id(kafka_protocol::messages::BrokerId(NO_BROKER.0))
        .with_port(NO_PORT)
}

/// Why there is no coordinator for keys of this type: a consumer group (0), a transactional id (1), a share group (2).
fn refused(key_type: i8, version: i16) -> AdminError {
    let unserved_with = |code, what| refusal(code, format!("{what} are not supported by this broker"));
    let unserved = |what| unserved_with(ResponseError::InvalidRequest, what);
    match key_type {
        0 => unserved("Consumer groups"),
        1 if version < BATCHED_SINCE => {
            unserved_with(ResponseError::TransactionalIdAuthorizationFailed, "Transactions")
        }
        1 => unserved("Transactions"),
        2 => unserved("Share groups"),
        // Kafka's own words for an error that has none.
        _ => refusal(ResponseError::InvalidRequest, message_of(ResponseError::InvalidRequest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::testing::Broker;

    #[test]
    fn every_version_refuses_in_a_way_that_clients_do_not_repeat() {
        let broker = Broker::empty();
        for version in 0..BATCHED_SINCE {
            let request = FindCoordinatorRequest::default().with_key(StrBytes::from_static_str("my-group"));
            let response = broker.ask(version, &request);
            assert_eq!((response.error_code, response.node_id.0, response.port), (42, -1, -1));
            if version >= 1 {
                let message = response.error_message.as_deref();
                assert_eq!(message, Some("Consumer groups are not supported by this broker"));
            }
        }
        for version in BATCHED_SINCE..=SERVED.max {
            let keys = ["a", "b"].map(StrBytes::from_static_str);
            let request = FindCoordinatorRequest::default().with_key_type(1).with_coordinator_keys(keys.to_vec());
            let told = broker.ask(version, &request).coordinators;
            let told: Vec<_> = told.iter().map(|c| (c.key.as_str(), c.error_code, c.node_id.0, c.port)).collect();
            assert_eq!(told, [("a", 42, -1, -1), ("b", 42, -1, -1)]);
        }
    }

    /// librdkafka asked again until its own time was up.
    #[test]
    fn a_transactional_producer_fails_at_once() {
        let broker = Broker::empty();
        for version in 1..BATCHED_SINCE {
            let response = broker.ask(version, &FindCoordinatorRequest::default().with_key_type(1));
            assert_eq!(response.error_code, ResponseError::TransactionalIdAuthorizationFailed.code());
            assert_eq!(response.error_message.as_deref(), Some("Transactions are not supported by this broker"));
        }
    }

    #[test]
    fn an_unknown_kind_of_key_is_refused_in_kafkas_words() {
        let response = Broker::empty().ask(2, &FindCoordinatorRequest::default().with_key_type(9));
        assert_eq!(response.error_code, 42);
        assert!(response.error_message.is_some_and(|message| message.starts_with("This most likely occurs because")));
    }
}
