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
        default_value = BOOTSTRAP
    )]
    bootstrap: String,
    /// How long to keep trying, e.g. 30s, 500ms, 2m, once a broker has answered; when the command begins, each address of
    /// --bootstrap is tried once
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = super::moment::parse_duration)]
    timeout: Duration,
    /// The name that the broker's logs and quotas know this client by
    #[arg(long, value_name = "NAME", default_value = "corelog")]
    client_id: String,
}

const BOOTSTRAP: &str = "localhost:9092";

impl ConnectArgs {
    /// An environment variable that is set to nothing says nothing.
    fn bootstrap(&self) -> &str {
        let is_from_variable = std::env::var_os("CORELOG_BOOTSTRAP").is_some_and(|value| value.is_empty());
        if self.bootstrap.is_empty() && is_from_variable { BOOTSTRAP } else { &self.bootstrap }
    }

    pub fn connect(&self) -> anyhow::Result<Cluster> {
        Ok(Cluster::connect(self.options()?)?)
    }

    pub fn options(&self) -> anyhow::Result<Options> {
        let mut options = Options::new(HostPort::parse_list(self.bootstrap())?);
        options.client_id = self.client_id.clone();
        options.retry_for = self.timeout;
        options.timeouts.request = self.timeout.max(Duration::from_millis(100));
        options.timeouts.connect = options.timeouts.connect.min(options.timeouts.request);
        Ok(options)
    }
}
