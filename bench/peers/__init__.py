"""The brokers that bench/compare knows: each file here is one, with a class `Peer`.

A peer is a `harness.Target` with
    NAME                what to call it
    PAGE_CACHE, ON_DISK what an acknowledgement means in rows of either kind: printed beside the figures
    DURABLE_TOPIC       settings of a topic that make acks=all mean "on disk"
    __init__(home)      a directory of its own, which exists and is removed by the caller; nothing runs yet
    install()           fetches what is missing (class method)
    start(), stop()     the process, or processes; start returns when it answers
    port, address, pids
and may have
    KINDS               the kinds of rows that it is for [all]
    IS_BROKER           whether what was written can be read back [True]
"""

import importlib
import os


def known():
    names = (name[:-3] for name in sorted(os.listdir(os.path.dirname(__file__))) if name.endswith(".py"))
    return [name for name in names if name != "__init__" and not name.startswith("_")]


def load(name):
    return importlib.import_module(f"peers.{name}").Peer
