//! The wire protocol without sockets: frames, header, the guard against hostile lengths, reply encoding.

pub mod reply;
