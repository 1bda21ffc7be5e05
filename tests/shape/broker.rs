//! A broker in a process of its own: the real binary, with two shards on loopback.
//!
//! Shared by the suites `shape` and `hostile`. A broker is ended by its own process id when it is dropped.

#![allow(dead_code, reason = "each of the two suites uses its part")]

use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long anything may take before a test fails: generous, since machines that run tests are busy.
pub const PATIENCE: Duration = Duration::from_secs(120);
pub const SHARDS: u16 = 2;

pub struct Broker {
    child: Child,
    pub port: u16,
    pub dir: PathBuf,
    stdout: Receiver<String>,
    log: Arc<Mutex<String>>,
    log_reader: Option<std::thread::JoinHandle<()>>,
}

/// How to start one.
pub struct Start {
    dir: PathBuf,
    port: u16,
    settings: Vec<(String, String)>,
    shards: u16,
    prefix: Vec<String>,
}

impl Start {
    /// A broker with its data in `dir`, on free ports.
    pub fn new(dir: &Path) -> Start {
        Start { dir: dir.to_owned(), port: free_ports(), settings: Vec::new(), shards: SHARDS, prefix: Vec::new() }
    }

    pub fn set(mut self, name: &str, value: impl ToString) -> Start {
        self.settings.push((name.to_owned(), value.to_string()));
        self
    }

    pub fn port(mut self, port: u16) -> Start {
        self.port = port;
        self
    }

    pub fn shards(mut self, shards: u16) -> Start {
        self.shards = shards;
        self
    }

    /// Runs it under another program, which must end as the broker does and leave it our direct child.
    pub fn under(mut self, prefix: &[&str]) -> Start {
        self.prefix = prefix.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    pub fn command(&self) -> Command {
        let mut words = self.prefix.clone();
        words.push(env!("CARGO_BIN_EXE_corelog").to_owned());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg("serve");
        command.args(["--set", &format!("listeners=PLAINTEXT://127.0.0.1:{}", self.port)]);
        command.args(["--set", &format!("log.dirs={}", self.dir.display())]);
        for (name, value) in &self.settings {
            command.args(["--set", &format!("{name}={value}")]);
        }
        command.args(["--shards", &self.shards.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Starts it and waits until it serves.
    pub fn start(self) -> Broker {
        let mut child = self.command().spawn().expect("the broker's binary starts");
        let (lines, stdout) = mpsc::channel();
        let out = BufReader::new(child.stdout.take().expect("piped"));
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| lines.send(line)));
        let log = Arc::new(Mutex::new(String::new()));
        let (err, copy) = (BufReader::new(child.stderr.take().expect("piped")), Arc::clone(&log));
        let log_reader = std::thread::spawn(move || {
            for line in err.lines().map_while(Result::ok) {
                let mut log = copy.lock().expect("no reader panics while it holds the log");
                log.push_str(&line);
                log.push('\n');
            }
        });
        let broker = Broker { child, port: self.port, dir: self.dir, stdout, log, log_reader: Some(log_reader) };
        broker.line_beginning("corelog is ready");
        broker
    }

    /// Starts it although it must refuse to: what it says on stderr.
    pub fn refusal(self) -> String {
        let mut child = self.command().spawn().expect("the broker's binary starts");
        let status = wait(&mut child, PATIENCE);
        let mut text = String::new();
        child.stderr.take().expect("piped").read_to_string(&mut text).expect("its log is text");
        assert!(status.is_some_and(|status| !status.success()), "it should have refused to start: {status:?}\n{text}");
        text
    }
}

impl Broker {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The port of a shard.
    pub fn port_of(&self, shard: u16) -> u16 {
        self.port + shard
    }

    pub fn log(&self) -> String {
        self.log.lock().expect("the writer does not panic").clone()
    }

    /// The counters of all shards, by SIGUSR1.
    pub fn counters(&self) -> Vec<Value> {
        self.signal(rustix::process::Signal::USR1);
        let line = self.line_beginning("{\"shards\"");
        let json: Value = serde_json::from_str(&line).expect("one JSON line");
        json["shards"].as_array().expect("a list of shards").clone()
    }

    /// One counter, of every shard.
    pub fn counter(&self, name: &str) -> Vec<u64> {
        let count = |shard: &Value| shard[name].as_u64().unwrap_or_else(|| panic!("no counter {name} in {shard}"));
        self.counters().iter().map(count).collect()
    }

    /// Waits until a condition on the counters holds.
    pub fn until(&self, what: &str, condition: impl Fn(&[Value]) -> bool) {
        let begun = Instant::now();
        loop {
            let counters = self.counters();
            if condition(&counters) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "never came: {what}; {counters:?}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the broker lives");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS is told");
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number of KiB");
        kib << 10
    }

    pub fn assert_alive(&mut self) {
        let status = self.child.try_wait().expect("our own child");
        assert!(status.is_none(), "the broker ended: {status:?}\n{}", self.log());
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("our own child");
    }

    /// Stops it with `signal` and waits for its end.
    pub fn stop(mut self, signal: rustix::process::Signal) -> (ExitStatus, String) {
        self.signal(signal);
        let status = wait(&mut self.child, PATIENCE);
        // Its last lines may still be on their way; whoever reads them ends with them.
        if let Some(reader) = self.log_reader.take().filter(|_| status.is_some()) {
            reader.join().expect("the reader does not panic");
        }
        let log = self.log();
        (status.unwrap_or_else(|| panic!("it did not stop\n{log}")), log)
    }

    /// kill -9.
    pub fn kill(mut self) {
        self.child.kill().expect("our own child");
        self.child.wait().expect("our own child");
    }

    fn line_beginning(&self, start: &str) -> String {
        let give_up = Instant::now() + PATIENCE;
        loop {
            match self.stdout.recv_timeout(give_up.saturating_duration_since(Instant::now())) {
                Ok(line) if line.starts_with(start) => return line,
                Ok(_) => {}
                Err(error) => panic!("no line {start:?} from the broker: {error}\n{}", self.log()),
            }
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let give_up = Instant::now() + patience;
    while Instant::now() < give_up {
        if let Some(status) = child.try_wait().expect("our own child") {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let _ = child.kill();
    None
}

/// The first of as many free ports as a broker needs: above the range from which the kernel gives ports to clients.
pub fn free_ports() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 61_000;
    const SLOTS: u16 = 2_000;
    let begin = (std::process::id() % u32::from(SLOTS)) as u16;
    for _ in 0..SLOTS {
        let slot = (begin + NEXT.fetch_add(1, Ordering::Relaxed)) % SLOTS;
        let port = FIRST + slot * SHARDS;
        let held: Vec<_> = (0..SHARDS).map(|shard| TcpListener::bind(("127.0.0.1", port + shard))).collect();
        if held.iter().all(Result::is_ok) {
            return port;
        }
    }
    panic!("no free ports from {FIRST} on");
}
