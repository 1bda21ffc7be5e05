//! The codec's decoders and encoders by API key.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Message, Request};

pub struct Codec {
    pub key: i16,
    pub version_min: i16,
    pub version_max: i16,
    /// Decodes from the front of the bytes; how many it took.
    pub decode: fn(Bytes, i16) -> Result<usize, String>,
    /// Decodes, and encodes again what was decoded.
    pub again: fn(Bytes, i16) -> Result<Bytes, String>,
}

pub fn codec(key: i16) -> Option<&'static Codec> {
    CODECS.iter().find(|codec| codec.key == key)
}

macro_rules! codecs {
    ($($request:ty),* $(,)?) => {
        &[$(Codec {
            key: <$request as Request>::KEY,
            version_min: <$request as Message>::VERSIONS.min,
            version_max: <$request as Message>::VERSIONS.max,
            decode: decode::<$request>,
            again: again::<$request>,
        }),*]
    };
}

static CODECS: &[Codec] = codecs![
    ProduceRequest,
    FetchRequest,
    ListOffsetsRequest,
    MetadataRequest,
    ApiVersionsRequest,
    InitProducerIdRequest,
    OffsetForLeaderEpochRequest,
    FindCoordinatorRequest,
    CreateTopicsRequest,
    DeleteTopicsRequest,
    CreatePartitionsRequest,
    DeleteRecordsRequest,
    DescribeConfigsRequest,
    AlterConfigsRequest,
    IncrementalAlterConfigsRequest,
    DescribeClusterRequest,
    DescribeLogDirsRequest,
    OffsetCommitRequest,
    OffsetFetchRequest,
    OffsetDeleteRequest,
    JoinGroupRequest,
    HeartbeatRequest,
    LeaveGroupRequest,
    SyncGroupRequest,
    DescribeGroupsRequest,
    ListGroupsRequest,
    DeleteGroupsRequest,
    ConsumerGroupHeartbeatRequest,
    ConsumerGroupDescribeRequest,
];

/// The answers that our own client decodes, by the key of their request.
pub fn response_codec(key: i16) -> Option<&'static Codec> {
    RESPONSES.iter().find(|codec| codec.key == key)
}

macro_rules! response_codecs {
    ($($request:ty),* $(,)?) => {
        &[$(Codec {
            key: <$request as Request>::KEY,
            version_min: <$request as Message>::VERSIONS.min,
            version_max: <$request as Message>::VERSIONS.max,
            decode: decode_response::<$request>,
            again: again::<<$request as Request>::Response>,
        }),*]
    };
}

static RESPONSES: &[Codec] = response_codecs![
    ProduceRequest,
    FetchRequest,
    ListOffsetsRequest,
    MetadataRequest,
    ApiVersionsRequest,
    CreateTopicsRequest,
    DeleteTopicsRequest,
    InitProducerIdRequest,
    DescribeConfigsRequest,
    DescribeLogDirsRequest,
    CreatePartitionsRequest,
    IncrementalAlterConfigsRequest,
    OffsetCommitRequest,
    OffsetFetchRequest,
    FindCoordinatorRequest,
    JoinGroupRequest,
    HeartbeatRequest,
    LeaveGroupRequest,
    SyncGroupRequest,
    DescribeGroupsRequest,
    ListGroupsRequest,
    DeleteGroupsRequest,
    OffsetDeleteRequest,
    ConsumerGroupDescribeRequest,
];

/// Header and body.
fn decode_response<R: Request>(mut frame: Bytes, version: i16) -> Result<usize, String> {
    let length = frame.len();
    ResponseHeader::decode(&mut frame, R::Response::header_version(version)).map_err(|error| error.to_string())?;
    R::Response::decode(&mut frame, version).map_err(|error| error.to_string())?;
    Ok(length - frame.len())
}

fn decode<R: Decodable>(mut bytes: Bytes, version: i16) -> Result<usize, String> {
    let length = bytes.len();
    R::decode(&mut bytes, version).map_err(|error| error.to_string())?;
    Ok(length - bytes.len())
}

fn again<R: Decodable + Encodable>(mut bytes: Bytes, version: i16) -> Result<Bytes, String> {
    let request = R::decode(&mut bytes, version).map_err(|error| error.to_string())?;
    let mut encoded = BytesMut::new();
    request.encode(&mut encoded, version).map_err(|error| error.to_string())?;
    Ok(encoded.freeze())
}
