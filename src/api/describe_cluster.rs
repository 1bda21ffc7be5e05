//! DescribeCluster (key 60), versions 0 and 1.
//!
//! Tells every shard as a broker (KIP-700), with the same addresses as Metadata. From version 1 on the client says which
//! kind of endpoint it believes to talk to (KIP-919): this is a broker's; anything else is refused.
//!
//! Omitted: version 2 of Kafka 4.0 (fenced brokers), since there is no fencing.

use super::authorized_operations as operations;
use super::brokers;
use super::context::ShardContext;
use super::registry::Served;
use super::{Outcome, RequestInfo};
use crate::cluster::image::Broker;
use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::{ApiKey, DescribeClusterRequest, DescribeClusterResponse};
use kafka_protocol::protocol::StrBytes;
use std::rc::Rc;

pub const SERVED: Served =
    Served { key: ApiKey::DescribeCluster as i16, advertised_min: 0, accepted_min: 0, max: 1, handle };

/// Kinds of endpoint (KIP-919).
const ENDPOINT_BROKER: i8 = 1;
const ENDPOINT_CONTROLLER: i8 = 2;

/// The first version whose clients know the errors about endpoints.
const ENDPOINT_ERRORS_SINCE: i16 = 1;

fn handle(context: &Rc<ShardContext>, info: &RequestInfo, body: Bytes) -> Outcome {
    info.decoded(body, |request: DescribeClusterRequest| {
        if let Some((code, message)) = refused_endpoint(request.endpoint_type) {
            let code = if info.version < ENDPOINT_ERRORS_SINCE { ResponseError::InvalidRequest } else { code };
            let response = DescribeClusterResponse::default()
                .with_error_code(code.code())
                .with_error_message(Some(StrBytes::from_string(message)));
            return info.reply(&response);
        }
        let (context, info) = (Rc::clone(context), info.clone());
        // Told as of the answer's turn, for the same reason as in Metadata.
        Outcome::Wait(Box::pin(async move { info.answer(&describe(&context, &info, &request)) }))
    })
}

fn refused_endpoint(endpoint: i8) -> Option<(ResponseError, String)> {
    match endpoint {
        ENDPOINT_BROKER => None,
        ENDPOINT_CONTROLLER => Some((
            ResponseError::MismatchedEndpointType,
            "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER".into(),
        )),
        other => Some((ResponseError::UnsupportedEndpointType, format!("Unsupported endpoint type {other}"))),
    }
}

fn describe(context: &ShardContext, info: &RequestInfo, request: &DescribeClusterRequest) -> DescribeClusterResponse {
    let image = context.image();
    let entry = |broker: &Broker| {
        DescribeClusterBroker::default()
            .with_broker_id(kafka_protocol::messages::BrokerId(broker.id.0))
            .with_host(brokers::advertised_host(broker, info.local_addr))
            .with_port(i32::from(broker.port))
            .with_rack(brokers::rack(broker))
    };
    let operations = match request.include_cluster_authorized_operations {
        true => operations::CLUSTER,
        false => operations::NOT_ASKED,
    };
    DescribeClusterResponse::default()
        .with_cluster_id(StrBytes::from_string(image.cluster_id.clone()))
        .with_controller_id(kafka_protocol::messages::BrokerId(brokers::controller(&image).0))
        .with_brokers(image.brokers.values().map(entry).collect())
        .with_cluster_authorized_operations(operations)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::testing::{self, Broker};

    #[test]
    fn every_version_tells_every_shard() {
        let mut image = testing::image(2);
        image.brokers.values_mut().for_each(|broker| broker.rack = Some("r1".into()));
        let broker = Broker::with(image);
        for version in 0..=SERVED.max {
            let request = DescribeClusterRequest::default().with_include_cluster_authorized_operations(version == 1);
            let response = broker.ask(version, &request);
            assert_eq!((response.error_code, &*response.cluster_id, response.controller_id.0), (0, "a-cluster", 0));
            let told = |b: &DescribeClusterBroker| (b.broker_id.0, b.host.to_string(), b.port, b.rack.is_some());
            let expected = [(0, "127.0.0.1".to_string(), 9092, true), (1, "127.0.0.1".to_string(), 9093, true)];
            assert_eq!(response.brokers.iter().map(told).collect::<Vec<_>>(), expected);
            let operations = if version == 1 { 8096 } else { operations::NOT_ASKED };
            assert_eq!(response.cluster_authorized_operations, operations);
        }
    }

    #[test]
    fn a_controller_that_is_not_listed_is_not_told() {
        let mut image = testing::image(1);
        image.controller = Some(crate::base::ids::BrokerId(7000));
        let response = Broker::with(image).ask(1, &DescribeClusterRequest::default());
        assert_eq!(response.controller_id.0, -1);
    }

    #[test]
    fn other_kinds_of_endpoints_are_refused() {
        let ask = |endpoint| Broker::empty().ask(1, &DescribeClusterRequest::default().with_endpoint_type(endpoint));
        let refused = |endpoint| {
            let response = ask(endpoint);
            assert_eq!((response.controller_id.0, &*response.cluster_id), (-1, ""));
            (response.error_code, response.error_message.map(|message| message.to_string()).unwrap_or_default())
        };
        let mismatch =
            "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER";
        assert_eq!(refused(2), (114, mismatch.to_string()));
        assert_eq!(refused(0), (115, "Unsupported endpoint type 0".to_string()));
        assert_eq!(refused(-5), (115, "Unsupported endpoint type -5".to_string()));
    }
}
