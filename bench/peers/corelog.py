"""This repository's broker as it comes, one shard for each core: build it first (cargo build --release), or name it with CORELOG."""

import os

import harness


class Peer(harness.Broker):
    NAME = "Corelog"
    PAGE_CACHE = "acks=1: in the page cache"
    ON_DISK = "acks=all: on disk, by the journal (the default)"
    DURABLE_TOPIC = {}

    def __init__(self, home):
        shards = int(os.environ.get("CORELOG_SHARDS", os.cpu_count() or 1))
        super().__init__(shards=shards, home=home)

    @classmethod
    def install(cls):
        if not os.path.exists(harness.CORELOG):
            raise SystemExit(f"{harness.CORELOG} is missing: cargo build --release")
