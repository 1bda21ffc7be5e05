"""What the two Apache Kafkas share: jars from Maven Central, by the pom files of tests/clients, and the JVM's flags as Kafka's own scripts set them."""

import glob
import os
import shutil
import subprocess

import harness

JVM = ["-Xms2g", "-Xmx2g", "-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:InitiatingHeapOccupancyPercent=35",
       "-XX:+ExplicitGCInvokesConcurrent", "-Djava.awt.headless=true"]  # fmt: skip
LOG4J = """log4j.rootLogger=WARN, stdout
log4j.appender.stdout=org.apache.log4j.ConsoleAppender
log4j.appender.stdout.layout=org.apache.log4j.PatternLayout
log4j.appender.stdout.layout.ConversionPattern=[%d] %p %m (%c)%n
"""


class Kafka(harness.Target):
    PAGE_CACHE = "acks=1: in the page cache"
    ON_DISK = "acks=all and the topic's flush.messages=1: on disk, by fsync"
    DURABLE_TOPIC = {"flush.messages": "1"}
    VERSION = ""  # of the folder with its pom file, as tests/run names it

    def __init__(self, home):
        self.home = home
        self.port = harness.free_ports(2)
        self.address = f"127.0.0.1:{self.port}"
        self.processes = []
        with open(os.path.join(home, "log4j.properties"), "w") as file:
            file.write(LOG4J)

    @classmethod
    def libs(cls):
        return os.path.join(harness.ROOT, "tests/.cache", f"kafka{cls.VERSION}", "libs")

    @classmethod
    def install(cls):
        """As tests/run does; what one has fetched the other need not."""
        if glob.glob(os.path.join(cls.libs(), "kafka_2.13-*.jar")):
            return
        for tool in ("java", "mvn"):
            if shutil.which(tool) is None:
                raise SystemExit(f"{tool} is missing: apt-get install openjdk-17-jdk-headless maven, or leave out --peers kafka…")
        pom = os.path.join(harness.ROOT, "tests/clients/java", f"kafka{cls.VERSION}", "pom.xml")
        print(f"fetching {cls.NAME} from Maven Central", flush=True)
        subprocess.run(["mvn", "-q", "-B", "-f", pom, "dependency:copy-dependencies", f"-DoutputDirectory={cls.libs()}",
                        "-DincludeScope=runtime"], check=True)  # fmt: skip

    @property
    def pids(self):
        return [process.pid for process in self.processes]

    def java(self, log, flags, main, *arguments):
        """Starts a class of Kafka's jars."""
        command = ["java", *flags, f"-Dlog4j.configuration=file:{self.home}/log4j.properties", "-cp", f"{self.libs()}/*",
                   main, *arguments]  # fmt: skip
        with open(os.path.join(self.home, log), "ab") as out:
            return subprocess.Popen(command, cwd=self.home, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)

    def start_broker(self, settings):
        common = {"log.dirs": os.path.join(self.home, "data"), "offsets.topic.replication.factor": 1,
                  "transaction.state.log.replication.factor": 1, "transaction.state.log.min.isr": 1,
                  "group.initial.rebalance.delay.ms": 0}  # fmt: skip
        path = os.path.join(self.home, "server.properties")
        with open(path, "w") as file:
            file.writelines(f"{key}={value}\n" for key, value in {**common, **settings}.items())
        self.before_start(path)
        broker = self.java("broker.log", JVM, "kafka.Kafka", path)
        self.processes.append(broker)
        ready = lambda: harness.led_partitions(self.port, "none") is not None
        harness.wait_for(broker, ready, os.path.join(self.home, "broker.log"))

    def before_start(self, path):
        pass

    def stop(self, kill=False):
        # The broker first: it says goodbye to ZooKeeper.
        for process in reversed(self.processes):
            harness.end(process, kill)
        self.processes = []
