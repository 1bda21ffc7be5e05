#!/usr/bin/env python3
"""Checks the dependencies of Cargo workspaces against deny.toml, with nothing but cargo and Python.

Usage: tests/policy.py CARGO_TOML...

It covers what cargo-deny calls licenses, bans and sources. Advisories need the RustSec database, which is a download
of its own: they are cargo-deny's part, where it is installed.
"""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CRATES_IO = "registry+https://github.com/rust-lang/crates.io-index"


def main(manifests: list[str]) -> int:
    policy = tomllib.loads((ROOT / "deny.toml").read_text())
    problems, checked = [], 0
    for manifest in manifests:
        for package in packages(manifest):
            checked += 1
            problems += [f"{manifest}: {package['name']} {package['version']}: {what}" for what in judge(package, policy)]
    for problem in problems:
        print(problem)
    print(f"{checked} packages of {len(manifests)} workspaces checked against deny.toml, {len(problems)} problems")
    return 1 if problems or not checked else 0


def packages(manifest: str) -> list[dict]:
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--manifest-path", manifest]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=ROOT).stdout)["packages"]


def judge(package: dict, policy: dict) -> list[str]:
    """What speaks against a package; nothing if all is well."""
    problems = []
    licenses = policy["licenses"]
    allowed = set(licenses["allow"])
    for exception in licenses.get("exceptions", []):
        if exception["crate"] == package["name"]:
            allowed |= set(exception["allow"])
    expression = package["license"]
    if not expression:
        problems.append("names no licence")
    elif not satisfied(expression, allowed):
        problems.append(f"licence {expression} is not allowed")
    if package["name"] in {ban["crate"] for ban in policy["bans"]["deny"]}:
        problems.append("is banned")
    if package["source"] not in (None, CRATES_IO):
        problems.append(f"comes from {package['source']}")
    for dependency in package["dependencies"] if package["source"] is None else []:
        if dependency["req"] == "*" and dependency.get("path") is None:
            problems.append(f"asks for any version of {dependency['name']}")
    return problems


def satisfied(expression: str, allowed: set[str]) -> bool:
    """Can the SPDX expression be met with allowed licences? `/` is the old way to write OR, `+` means or later."""
    tokens = re.findall(r"\(|\)|[^\s()]+", expression.replace("/", " OR "))
    value, rest = either(tokens, allowed)
    if rest:
        raise ValueError(f"cannot read the licence expression {expression!r}")
    return value


def either(tokens: list[str], allowed: set[str]) -> tuple[bool, list[str]]:
    value, tokens = both(tokens, allowed)
    while tokens and tokens[0] == "OR":
        other, tokens = both(tokens[1:], allowed)
        value = value or other
    return value, tokens


def both(tokens: list[str], allowed: set[str]) -> tuple[bool, list[str]]:
    value, tokens = term(tokens, allowed)
    while tokens and tokens[0] == "AND":
        other, tokens = term(tokens[1:], allowed)
        value = value and other
    return value, tokens


def term(tokens: list[str], allowed: set[str]) -> tuple[bool, list[str]]:
    if tokens[0] == "(":
        value, tokens = either(tokens[1:], allowed)
        return value, tokens[1:]
    name, tokens = tokens[0], tokens[1:]
    if tokens and tokens[0] == "WITH":
        name, tokens = f"{name} WITH {tokens[1]}", tokens[2:]
    return name in allowed or name.removesuffix("+") in allowed, tokens


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
