//! The arguments that lead to a cluster, shared by all commands that talk to one.

use crate::client::address::HostPort;
use crate::client::cluster::{Cluster, Options};
use clap::Args;
use std::time::Duration;

#[derive(Args, Debug)]
pub struct ConnectArgs {
    /// Brokers to start from, host:port[,host:port…]; any of the cluster's will do
    #[arg(
        long = "bootstrap",
        short = 'b',
        visible_alias = "bootstrap-server",
        value_name = "HOST:PORT,…",
        env = "CORELOG_BOOTSTRAP",
        default_value = "localhost:9092"
    )]
    bootstrap: String,
    /// How long to keep trying, e.g. 30s, 500ms, 2m
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = super::moment::parse_duration)]
    timeout: Duration,
    /// The name that the broker's logs and quotas know this client by
    #[arg(long, value_name = "NAME", default_value = "corelog")]
    client_id: String,
}

impl ConnectArgs {
    pub fn connect(&self) -> anyhow::Result<Cluster> {
        Ok(Cluster::connect(self.options()?)?)
    }

    pub fn options(&self) -> anyhow::Result<Options> {
        let mut options = Options::new(HostPort::parse_list(&self.bootstrap)?);
        options.client_id = self.client_id.clone();
        options.retry_for = self.timeout;
        options.timeouts.request = self.timeout.max(Duration::from_millis(100));
        options.timeouts.connect = options.timeouts.connect.min(options.timeouts.request);
        Ok(options)
    }
}
