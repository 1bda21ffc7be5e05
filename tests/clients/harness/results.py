"""The table of clients: which version, against which broker, when, with how many tests passed.

A run merges its rows into tests/.cache/clients.json and renders tests/.cache/clients.md, whose rows the README quotes.
"""

import datetime
import json

from .broker import KIND
from .paths import CACHE

PATH = CACHE / f"clients{'' if KIND == 'corelog' else '-' + KIND}.json"
_run: dict[str, dict] = {}


def note(key: str, name: str, version: str, test: str, passed: bool) -> None:
    row = _run.setdefault(key, {"client": name, "version": version, "tests": {}})
    row["tests"][test] = {"passed": passed, "date": datetime.date.today().isoformat()}


def save() -> None:
    """Merges this run into the table: of every test its last outcome counts, unless the client's version changed."""
    if not _run:
        return
    rows = json.loads(PATH.read_text()) if PATH.exists() else {}
    for key, row in _run.items():
        if rows.get(key, {}).get("version") == row["version"]:
            row["tests"] = {**rows[key]["tests"], **row["tests"]}
        rows[key] = row
    PATH.parent.mkdir(parents=True, exist_ok=True)
    PATH.write_text(json.dumps(rows, indent=2, sort_keys=True) + "\n")
    lines = ["| client | version | last run | passed | failed |", "|---|---|---|---|---|"]
    for _, row in sorted(rows.items()):
        tests = row["tests"].values()
        passed = sum(test["passed"] for test in tests)
        date = max(test["date"] for test in tests)
        lines.append(f"| {row['client']} | {row['version']} | {date} | {passed} | {len(tests) - passed} |")
    PATH.with_suffix(".md").write_text("\n".join(lines) + "\n")
