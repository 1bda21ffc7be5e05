"""The table of clients: which version, against which broker, when, with how many tests passed.

A run merges its rows into tests/.cache/clients.json and renders tests/.cache/clients.md, whose rows the README quotes.
"""

import datetime
import json

from .broker import KIND
from .paths import CACHE

PATH = CACHE / f"clients{'' if KIND == 'corelog' else '-' + KIND}.json"
_run: dict[str, dict] = {}


def note(key: str, name: str, version: str, passed: bool) -> None:
    row = _run.setdefault(key, {"client": name, "version": version, "broker": KIND,
                                "date": datetime.date.today().isoformat(), "passed": 0, "failed": 0})
    row["passed" if passed else "failed"] += 1


def save() -> None:
    if not _run:
        return
    rows = json.loads(PATH.read_text()) if PATH.exists() else {}
    rows.update(_run)
    PATH.parent.mkdir(parents=True, exist_ok=True)
    PATH.write_text(json.dumps(rows, indent=2) + "\n")
    lines = ["| client | version | last run | passed | failed |", "|---|---|---|---|---|"]
    for row in rows.values():
        lines.append("| {client} | {version} | {date} | {passed} | {failed} |".format(**row))
    PATH.with_suffix(".md").write_text("\n".join(lines) + "\n")

