//! The broker under test: the real binary in a process of its own, ended by its own process id.

use anyhow::{Context, Result, bail};
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

const START_MAX: Duration = Duration::from_secs(60);
const STOP_MAX: Duration = Duration::from_secs(60);
pub const SHARDS: u16 = 2;

/// The program, and what a run adds to its settings.
pub struct Subject {
    pub binary: PathBuf,
    pub settings: Vec<(String, String)>,
}

/// How to start one, again and again on the same data.
#[derive(Clone, Debug)]
pub struct Launch {
    pub binary: PathBuf,
    pub data: PathBuf,
    /// Its log is appended to this file.
    pub log: PathBuf,
    pub port: u16,
    pub settings: Vec<(String, String)>,
}

pub struct Broker {
    child: Child,
    stdout: Receiver<String>,
    log: PathBuf,
}

impl Launch {
    /// Spawns it; it may not serve yet.
    pub fn spawn(&self) -> Result<Broker> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(&self.binary);
        command.arg("serve").args(["--shards", &SHARDS.to_string()]);
        command.args(["--set", &format!("listeners=PLAINTEXT://127.0.0.1:{}", self.port)]);
        command.args(["--set", &format!("log.dirs={}", self.data.display())]);
        for (name, value) in &self.settings {
            command.args(["--set", &format!("{name}={value}")]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().with_context(|| format!("starting {}", self.binary.display()))?;
        let out = BufReader::new(child.stdout.take().context("its output is piped")?);
        let (lines, stdout) = mpsc::channel();
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| lines.send(line)));
        Ok(Broker { child, stdout, log: self.log.clone() })
    }

    pub fn start(&self) -> Result<Broker> {
        let mut broker = self.spawn()?;
        broker.ready()?;
        Ok(broker)
    }
}

impl Broker {
    /// Waits until it serves.
    pub fn ready(&mut self) -> Result<()> {
        let give_up = Instant::now() + START_MAX;
        loop {
            match self.stdout.recv_timeout(give_up.saturating_duration_since(Instant::now())) {
                Ok(line) if line.starts_with("corelog is ready") => return Ok(()),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => bail!("the broker was not ready after {START_MAX:?}\n{}", self.log()),
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("the broker ended while starting: {:?}\n{}", self.child.wait(), self.log())
                }
            }
        }
    }

    /// kill -9.
    pub fn kill(mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("the broker had ended before it was killed: {status}\n{}", self.log());
        }
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// kill -9, if it lives: one whose disk is gone may have ended by itself.
    pub fn end_hard(self) {
        drop(self);
    }

    /// A stop in good order.
    pub fn stop(mut self) -> Result<()> {
        let pid = i32::try_from(self.child.id())?;
        // SAFETY: kill(2) touches no memory; the process is our own child, which was not waited for yet.
        unsafe { libc::kill(pid, libc::SIGTERM) };
        let give_up = Instant::now() + STOP_MAX;
        while Instant::now() < give_up {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("the broker stopped with {status}\n{}", self.log()),
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
        bail!("the broker did not stop within {STOP_MAX:?}\n{}", self.log())
    }

    /// Waits until it has ended by itself.
    pub fn ended(mut self, patience: Duration) -> Result<ExitStatus> {
        let give_up = Instant::now() + patience;
        while Instant::now() < give_up {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        bail!("the broker had not ended after {patience:?}\n{}", self.log())
    }

    fn log(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The first of as many free ports as a broker needs: above the range from which the kernel gives ports to clients.
pub fn free_ports() -> Result<u16> {
    const FIRST: u16 = 61_000;
    const SLOTS: u16 = 2_000;
    let begin = (std::process::id() % u32::from(SLOTS)) as u16;
    for slot in 0..SLOTS {
        let port = FIRST + (begin + slot) % SLOTS * SHARDS;
        let held: Vec<_> = (0..SHARDS).map(|shard| TcpListener::bind(("127.0.0.1", port + shard))).collect();
        if held.iter().all(Result::is_ok) {
            return Ok(port);
        }
    }
    bail!("no free ports from {FIRST} on")
}
