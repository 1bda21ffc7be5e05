//! The records of `__consumer_offsets`: committed offsets and groups' metadata, byte for byte as Apache Kafka writes them.
//!
//! ```text
//! key      | version i16 | ...
//!   0, 1:  an offset     | group string | topic string | partition i32 |       written as 1
//!   2:     a group       | group string |
//! value    | version i16 | ...; none (a tombstone) takes the key's meaning away
//!   of an offset, version 3:
//!          | offset i64 | leader epoch i32, -1 if unknown | metadata string | commit timestamp i64, ms |
//!     before 3 without the epoch; 1 with | expiry timestamp i64 | at the end
//!   of a group, version 3:
//!          | protocol type string | generation i32 | protocol nullable string | leader nullable string | state since i64, ms |
//!          | members: count i32, each | id string | instance id nullable string | client id string | client host string |
//!          | rebalance timeout i32 | session timeout i32 | subscription bytes | assignment bytes |
//!     before 3 without instance ids, before 2 without the time, 0 without rebalance timeouts
//! ```
//! Version 4 of both is version 3 in compact (flexible) form with tagged fields; it is read, not written.
//! A string has an i16 before it, -1 for null; bytes have an i32. All big-endian.
