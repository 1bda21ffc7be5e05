"""Stands in for test/service.py, which kafka-python's sdist leaves out although its tests import it: the broker runs already."""


class ExternalService:
    def __init__(self, host, port):
        self.host = host
        self.port = port

    def open(self):
        pass

    def close(self):
        pass


class SpawnedService:
    def __init__(self, args=None, env=None):
        raise RuntimeError(f"needs a broker that the test itself starts: {args}")
