//! What is known of the cluster at one instant: an immutable image that shards only read.

pub mod image;
pub mod topic_name;
