//! What is known of the cluster at one instant: an immutable image that shards only read; where replicas go.

pub mod edit;
pub mod image;
pub mod placement;
pub mod topic_name;
