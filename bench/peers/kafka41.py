"""Apache Kafka 4.1 with KRaft, broker and controller in one process."""

import base64
import os
import uuid

from peers._kafka import Kafka


class Peer(Kafka):
    NAME = "Kafka 4.1.0 (KRaft)"
    VERSION = "41"

    def start(self):
        controller = f"127.0.0.1:{self.port + 1}"
        self.start_broker({"process.roles": "broker,controller", "node.id": 1, "controller.quorum.voters": f"1@{controller}",
                           "listeners": f"PLAINTEXT://{self.address},CONTROLLER://{controller}",
                           "advertised.listeners": f"PLAINTEXT://{self.address}", "controller.listener.names": "CONTROLLER"})  # fmt: skip

    def before_start(self, path):
        if os.path.exists(os.path.join(self.home, "data", "meta.properties")):
            return
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        formatting = self.java("format.log", ["-Xmx256m"], "kafka.tools.StorageTool", "format", "-t", cluster, "-c", path)
        if formatting.wait() != 0:
            with open(os.path.join(self.home, "format.log"), errors="replace") as log:
                raise RuntimeError(f"formatting failed: {log.read()}")
