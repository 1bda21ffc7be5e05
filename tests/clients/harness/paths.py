"""Where things are. Everything that is installed or made by a run lives under tests/.cache."""

import os
from pathlib import Path

CLIENTS = Path(__file__).resolve().parent.parent
TESTS = CLIENTS.parent
ROOT = TESTS.parent
CACHE = TESTS / ".cache"
DATA = TESTS / "data"

CORELOG = Path(os.environ.get("CORELOG", ROOT / "target" / "release" / "corelog"))


def kafka_libs(version: str) -> Path:
    """Directory of Apache Kafka's jars; version is "39" or "41"."""
    return CACHE / f"kafka{version}" / "libs"
