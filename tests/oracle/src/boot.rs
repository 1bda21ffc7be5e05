//! Starts the brokers, each in a directory of its own, and ends them by their own process ids.

use crate::wire::Connection;
use anyhow::{Context, Result, bail};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const START_MAX: Duration = Duration::from_secs(60);
/// Settings that both brokers get: what would otherwise happen by itself in mid-run, and one node's limits.
const COMMON: &[(&str, &str)] = &[
    ("broker.id", "1"),
    ("offsets.topic.replication.factor", "1"),
    ("transaction.state.log.replication.factor", "1"),
    ("transaction.state.log.min.isr", "1"),
    ("group.initial.rebalance.delay.ms", "0"),
    // Small enough to be reached.
    ("group.max.size", "3"),
    // Records of the cases are from 2023.
    ("log.retention.ms", "-1"),
];

/// One running broker, ended when dropped.
pub struct Broker {
    pub name: &'static str,
    pub address: SocketAddr,
    /// Texts by which this broker's answers name its own places, and what they mean.
    pub places: Vec<(String, &'static str)>,
    children: Vec<Child>,
    _dir: tempfile::TempDir,
    log: PathBuf,
}

impl Broker {
    /// ZooKeeper and Apache Kafka with the jars in `libs`.
    pub fn kafka(name: &'static str, libs: &Path, first_port: u16) -> Result<Broker> {
        if !libs.is_dir() {
            bail!(
                "no jars of Apache Kafka in {}: tests/run puts them there, or name a directory with --kafka-libs",
                libs.display()
            );
        }
        let dir = tempfile::Builder::new().prefix("oracle-kafka-").tempdir()?;
        let (port, zookeeper_port) = (free_port(first_port)?, free_port(first_port + 89)?);
        let path = dir.path().to_owned();
        fs::write(path.join("log4j.properties"), LOG4J)?;
        let zoo = format!(
            "tickTime=1000\ndataDir={}\nclientPort={zookeeper_port}\nclientPortAddress=127.0.0.1\nadmin.enableServer=false\n",
            path.join("zookeeper").display()
        );
        fs::write(path.join("zoo.cfg"), zoo)?;
        let properties =
            properties(port, &path.join("data"), &[("zookeeper.connect", format!("127.0.0.1:{zookeeper_port}"))]);
        fs::write(path.join("server.properties"), properties)?;
        let java = |heap: &str, main: &str, config: &str, log: &str| -> Result<Child> {
            let mut command = Command::new("java");
            command
                .arg(format!("-Xmx{heap}"))
                .arg(format!("-Dlog4j.configuration=file:{}", path.join("log4j.properties").display()))
                .args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-cp"])
                .arg(format!("{}/*", libs.display()))
                .arg(main)
                .arg(path.join(config));
            spawn(command, &path.join(log))
        };
        let zookeeper = java("128m", "org.apache.zookeeper.server.quorum.QuorumPeerMain", "zoo.cfg", "zookeeper.log")?;
        let log = path.join("kafka.log");
        let mut places = places(port, path.join("data"));
        places.push((format!("127.0.0.1:{zookeeper_port}"), "<zookeeper>"));
        let mut broker = Broker { name, address: local(port), places, children: vec![zookeeper], _dir: dir, log };
        broker.wait(|| TcpStream::connect(local(zookeeper_port)).is_ok())?;
        broker.children.push(java("512m", "kafka.Kafka", "server.properties", "kafka.log")?);
        Ok(broker)
    }

    /// Apache Kafka 4 with KRaft, broker and controller in one process, with the jars in `libs` and some more settings.
    pub fn kafka4(name: &'static str, libs: &Path, first_port: u16, more: &[(&str, &str)]) -> Result<Broker> {
        if !libs.is_dir() {
            bail!(
                "no jars of Apache Kafka 4 in {}: tests/run puts them there, or name a directory with --kafka4-libs",
                libs.display()
            );
        }
        let dir = tempfile::Builder::new().prefix("oracle-kafka4-").tempdir()?;
        let port = free_ports(first_port, 2)?;
        let (path, controller) = (dir.path().to_owned(), port + 1);
        fs::write(path.join("log4j2.yaml"), LOG4J2)?;
        let own = [
            ("process.roles", "broker,controller".to_owned()),
            ("node.id", "1".to_owned()),
            ("controller.quorum.voters", format!("1@127.0.0.1:{controller}")),
            ("controller.listener.names", "CONTROLLER".to_owned()),
            ("advertised.listeners", format!("PLAINTEXT://127.0.0.1:{port}")),
            // Instead of the one above it.
            ("listeners", format!("PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}")),
        ];
        let config = path.join("server.properties");
        fs::write(&config, properties(port, &path.join("data"), &with(&own, more)))?;
        let java = |arguments: &[&str], log: &str| -> Result<Child> {
            let mut command = Command::new("java");
            command
                .arg("-Xmx512m")
                .arg(format!("-Dlog4j2.configurationFile={}", path.join("log4j2.yaml").display()))
                .args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-cp"])
                .arg(format!("{}/*", libs.display()))
                .args(arguments)
                .arg(&config);
            spawn(command, &path.join(log))
        };
        let cluster = "b3JhY2xlLWtyYWZ0LW9uZQ";
        let format = java(&["kafka.tools.StorageTool", "format", "-t", cluster, "-c"], "format.log")?.wait()?;
        if !format.success() {
            bail!("formatting failed: {}", fs::read_to_string(path.join("format.log")).unwrap_or_default());
        }
        let log = path.join("kafka.log");
        let child = java(&["kafka.Kafka"], "kafka.log")?;
        let places = places(port, path.join("data"));
        Ok(Broker { name, address: local(port), places, children: vec![child], _dir: dir, log })
    }

    /// `corelog serve` with so many shards, and some more settings.
    pub fn corelog(binary: &Path, first_port: u16, shards: u16, more: &[(&str, &str)]) -> Result<Broker> {
        if !binary.is_file() {
            bail!("no {}: build it, or name another with --corelog", binary.display());
        }
        let dir = tempfile::Builder::new().prefix("oracle-corelog-").tempdir()?;
        let port = free_ports(first_port, shards)?;
        fs::write(dir.path().join("server.properties"), properties(port, &dir.path().join("data"), &with(&[], more)))?;
        let mut command = Command::new(fs::canonicalize(binary)?);
        command.arg("serve").arg("--config").arg(dir.path().join("server.properties"));
        command.args(["--shards", &shards.to_string()]);
        let log = dir.path().join("corelog.log");
        let child = spawn(command, &log)?;
        let places = places(port, dir.path().join("data"));
        Ok(Broker { name: "Corelog", address: local(port), places, children: vec![child], _dir: dir, log })
    }

    /// Waits until the broker answers and knows itself as the controller's broker.
    pub fn ready(&mut self) -> Result<()> {
        let address = self.address;
        self.wait(|| answers(address).unwrap_or(false))
    }

    pub fn is_alive(&mut self) -> bool {
        self.children.iter_mut().all(|child| matches!(child.try_wait(), Ok(None)))
    }

    pub fn log_tail(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    fn wait(&mut self, ready: impl Fn() -> bool) -> Result<()> {
        let began = Instant::now();
        while !ready() {
            if !self.is_alive() {
                bail!("{} ended while starting:\n{}", self.name, self.log_tail());
            }
            if began.elapsed() > START_MAX {
                bail!("{} was not ready after {START_MAX:?}:\n{}", self.name, self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        for child in self.children.iter_mut().rev() {
            // Both fail only where the process is gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// True once Metadata names a broker and a controller.
fn answers(address: SocketAddr) -> Result<bool> {
    use crate::wire::{Received, decode};
    use kafka_protocol::messages::MetadataRequest;
    let mut connection = Connection::open(address)?;
    connection.send(&MetadataRequest::default().with_topics(Some(Vec::new())), 7, true)?;
    let Received::Frame(frame) = connection.receive()? else { return Ok(false) };
    let answer = decode::<MetadataRequest>(frame, 7)?;
    Ok(!answer.brokers.is_empty() && answer.controller_id.0 >= 0)
}

fn places(port: u16, data: PathBuf) -> Vec<(String, &'static str)> {
    vec![(data.display().to_string(), "<data>"), (format!("127.0.0.1:{port}"), "<address>")]
}

fn properties(port: u16, data: &Path, more: &[(&str, String)]) -> String {
    let mut text = format!("listeners=PLAINTEXT://127.0.0.1:{port}\nlog.dirs={}\n", data.display());
    for (key, value) in COMMON {
        text += &format!("{key}={value}\n");
    }
    for (key, value) in more {
        text += &format!("{key}={value}\n");
    }
    text
}

fn with<'s>(own: &[(&'s str, String)], more: &[(&'s str, &str)]) -> Vec<(&'s str, String)> {
    own.iter().cloned().chain(more.iter().map(|(key, value)| (*key, (*value).to_owned()))).collect()
}

fn spawn(mut command: Command, log: &Path) -> Result<Child> {
    let file = fs::File::create(log)?;
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    // A group of its own: an interrupt at the terminal reaches the test, which then ends its brokers.
    command.process_group(0);
    command.spawn().with_context(|| format!("starting {command:?}"))
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn free_port(first: u16) -> Result<u16> {
    free_ports(first, 1)
}

/// The first of `count` consecutive ports that nobody listens on.
fn free_ports(first: u16, count: u16) -> Result<u16> {
    (0..40)
        .map(|step| first + step * count)
        .find(|&start| (start..start + count).all(|port| TcpListener::bind(local(port)).is_ok()))
        .with_context(|| format!("no {count} free ports from {first}"))
}

const LOG4J: &str = "\
log4j.rootLogger=WARN, stdout
log4j.appender.stdout=org.apache.log4j.ConsoleAppender
log4j.appender.stdout.layout=org.apache.log4j.PatternLayout
log4j.appender.stdout.layout.ConversionPattern=[%d] %p %m (%c)%n
";

const LOG4J2: &str = "\
Configuration:
  Appenders:
    Console:
      name: stdout
      PatternLayout:
        pattern: '[%d] %p %m (%c)%n'
  Loggers:
    Root:
      level: WARN
      AppenderRef:
        ref: stdout
";
