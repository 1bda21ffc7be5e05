//! The wire protocol without sockets: frames, header, the guard against hostile lengths, reply encoding.

mod cursor;
pub mod encode;
pub mod errors;
pub mod frame;
pub mod guard;
pub mod reply;
