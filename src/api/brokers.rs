//! Shards as clients are told of them: a broker each, with the address where it can be reached.

use crate::base::ids::BrokerId;
use crate::cluster::image::{Broker, ClusterImage};
use kafka_protocol::protocol::StrBytes;
use std::net::SocketAddr;

/// "There is none" where a broker's id is asked for.
pub const NO_BROKER: BrokerId = BrokerId(-1);

/// The host to tell a client whose connection ends at `local_addr`: what is configured, or else that very address,
/// through which this client does reach the machine (an address behind NAT must be configured).
pub fn advertised_host(broker: &Broker, local_addr: SocketAddr) -> StrBytes {
    match &broker.host {
        Some(host) => StrBytes::from_string(host.clone()),
        // A dual-stack socket shows IPv4 as ::ffff:a.b.c.d, which clients without IPv6 cannot use.
        None => StrBytes::from_string(local_addr.ip().to_canonical().to_string()),
    }
}

pub fn rack(broker: &Broker) -> Option<StrBytes> {
    broker.rack.clone().map(StrBytes::from_string)
}

/// The controller that clients are told of: one of the brokers listed, or -1.
pub fn controller(image: &ClusterImage) -> BrokerId {
    image.controller.filter(|id| image.brokers.contains_key(id)).unwrap_or(NO_BROKER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unconfigured_host_is_the_address_that_the_client_reached() {
        let broker = Broker { id: BrokerId(0), host: None, port: 9092, rack: None };
        let host = |address: &str| advertised_host(&broker, address.parse().expect("address")).to_string();
        assert_eq!(host("10.1.2.3:9092"), "10.1.2.3");
        assert_eq!(host("[::ffff:10.1.2.3]:9092"), "10.1.2.3");
        assert_eq!(host("[2001:db8::1]:9092"), "2001:db8::1");
    }

    #[test]
    fn configured_host_goes_before_the_address() {
        let broker = Broker { id: BrokerId(0), host: Some("k1.example".into()), port: 9092, rack: None };
        assert_eq!(&*advertised_host(&broker, ([127, 0, 0, 1], 9092).into()), "k1.example");
    }
}
