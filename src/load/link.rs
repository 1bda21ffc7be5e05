//! A connection's socket, which never blocks, and what it has yet to send.

use super::outbox::Outbox;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;

pub struct Link {
    pub socket: TcpStream,
    pub out: Outbox,
    /// The socket took less than there was: it tells when it takes more.
    pub is_blocked: bool,
}

impl Link {
    pub fn new(socket: TcpStream) -> io::Result<Link> {
        socket.set_nonblocking(true)?;
        Ok(Link { socket, out: Outbox::default(), is_blocked: false })
    }

    /// Writes as much as the socket takes; whether that was all.
    pub fn flush(&mut self) -> io::Result<bool> {
        self.is_blocked = false;
        while !self.out.is_empty() {
            let written = self.socket.write_vectored(&self.out.slices());
            match written {
                Ok(written) => self.out.written(written),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.is_blocked = true;
                    return Ok(false);
                }
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }

    /// Bytes that came; None if there are none yet. The connection's end is an error.
    pub fn read(&mut self, into: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            match self.socket.read(into) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => return Ok(Some(read)),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(e) => return Err(e),
            }
        }
    }
}
