"""Apache Kafka 3.9 with ZooKeeper, whose CPU time and memory count as the broker's."""

import os

import harness
from peers._kafka import Kafka


class Peer(Kafka):
    NAME = "Kafka 3.9.1 (ZooKeeper)"
    VERSION = "39"

    def start(self):
        path = os.path.join(self.home, "zoo.cfg")
        with open(path, "w") as file:
            file.write(f"tickTime=1000\ndataDir={self.home}/zookeeper\nclientPort={self.port + 1}\n"
                       "clientPortAddress=127.0.0.1\nadmin.enableServer=false\n")  # fmt: skip
        zookeeper = self.java("zookeeper.log", ["-Xmx512m"], "org.apache.zookeeper.server.quorum.QuorumPeerMain", path)
        self.processes.append(zookeeper)
        harness.wait_for(zookeeper, lambda: harness.can_connect(self.port + 1), os.path.join(self.home, "zookeeper.log"))
        self.start_broker({"broker.id": 1, "listeners": f"PLAINTEXT://{self.address}",
                           "zookeeper.connect": f"127.0.0.1:{self.port + 1}"})  # fmt: skip
