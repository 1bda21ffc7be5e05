//! DescribeCluster, DescribeLogDirs and FindCoordinator.

use super::fetch::filled;
use super::{PLAIN, each_version};
use crate::pair::Pair;
use crate::requests::{text, topic_name};
use anyhow::Result;
use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use kafka_protocol::messages::{DescribeClusterRequest, DescribeLogDirsRequest, FindCoordinatorRequest};

pub fn script(pair: &mut Pair) -> Result<()> {
    each_version::<DescribeClusterRequest>(pair, |pair, version| {
        pair.case("describe-cluster");
        pair.same(version, |_| DescribeClusterRequest::default())?;
        pair.same(version, |_| DescribeClusterRequest::default().with_include_cluster_authorized_operations(true))?;
        if version >= 1 {
            for endpoint in [0, 2, 3] {
                pair.case(format!("describe-cluster-endpoint-type-{endpoint}"));
                pair.same(version, |_| DescribeClusterRequest::default().with_endpoint_type(endpoint))?;
            }
        }
        Ok(())
    })?;
    pair.case("describe-log-dirs-prepare");
    let partition = filled(pair)?;
    each_version::<DescribeLogDirsRequest>(pair, |pair, version| {
        let topic = |name: &str, partitions: &[i32]| {
            DescribableLogDirTopic::default().with_topic(topic_name(name)).with_partitions(partitions.to_vec())
        };
        let ask = |topics| DescribeLogDirsRequest::default().with_topics(topics);
        pair.case("describe-log-dirs-some");
        pair.same(version, |_| ask(Some(vec![topic(PLAIN, &[partition])])))?;
        pair.same(version, |_| ask(Some(vec![topic(PLAIN, &[9_999, partition, -1]), topic("nobody", &[0])])))?;
        pair.same(version, |_| ask(Some(vec![topic(PLAIN, &[])])))?;
        pair.same(version, |_| ask(Some(vec![])))?;
        pair.case("describe-log-dirs-twice");
        pair.same(version, |_| ask(Some(vec![topic(PLAIN, &[partition, partition])])))?;
        pair.case("describe-log-dirs-all");
        pair.same(version, |_| ask(None))?;
        Ok(())
    })?;
    each_version::<FindCoordinatorRequest>(pair, |pair, version| {
        for kind in [0, 1, 2, 3, -1] {
            if version == 0 && kind != 0 {
                continue;
            }
            pair.case(format!("find-coordinator-type-{kind}"));
            pair.same(version, |_| {
                let request = FindCoordinatorRequest::default();
                let request = if version >= 1 { request.with_key_type(kind) } else { request };
                if version >= 4 {
                    request.with_coordinator_keys(vec![text("group"), text("")])
                } else {
                    request.with_key(text("group"))
                }
            })?;
        }
        Ok(())
    })
}
