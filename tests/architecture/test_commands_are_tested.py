"""Every command of the docker command line is run by an end-to-end test, refused by design, or not the engine's."""

import ast
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

E2E = Path(__file__).parents[1] / "e2e"
CALLERS = {"docker", "start", "_terminal", "terminal", "_docker"}
"""Functions of the tests that run the command line; the words follow, after a fleet perhaps."""

GROUPS = ("builder", "container", "context", "image", "manifest", "network", "node", "plugin", "swarm",
          "system", "trust", "volume")  # fmt: skip
SAME = {
    "container ls": "ps",
    "image build": "build",
    "builder build": "build",
    "image history": "history",
    "image import": "import",
    "image load": "load",
    "image ls": "images",
    "image pull": "pull",
    "image push": "push",
    "image rm": "rmi",
    "image save": "save",
    "image tag": "tag",
    "system events": "events",
    "system info": "info",
    "logout": "logout",
}
"""Commands that are another name of one, beside `container X` for X."""

REFUSED = ("config", "secret", "service", "stack", "swarm", "plugin")
"""Whole groups: swarm mode and plugins; `docs/compatibility.md` says why."""

CLIENT_SIDE = (
    "context", "trust", "manifest", "builder", "buildx", "compose", "completion", "debug", "scout", "model", "mcp",
    "checkpoint",
)  # fmt: skip
"""Groups that ask a registry, another program or nobody at all; `builder prune` is the engine's."""


def _words(arguments: list[ast.expr]) -> tuple[str, ...]:
    texts: list[str] = []
    for argument in arguments:
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
            texts.append(argument.value)
        elif texts:
            break
        if len(texts) == 2:
            break
    return tuple(texts)


def _named(arguments: list[ast.expr]) -> set[str]:
    words = _words(arguments)
    return {words[0], " ".join(words)} if words else set()


def _run_by_tests() -> set[str]:
    """One and two words of every call of the command line in the end-to-end tests."""
    found = set()
    for file in E2E.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                if name in CALLERS:
                    found |= _named(node.args)
                if name == "parametrize":
                    for row in ast.walk(node):
                        found |= _named(row.elts) if isinstance(row, ast.Tuple) else set()
    return found


def _listed(*words: str) -> Iterator[str]:
    """Commands in the help of the command line or of one of its groups."""
    done = subprocess.run(["docker", *words, "--help"], capture_output=True, text=True, check=True)
    is_list = False
    for line in done.stdout.splitlines():
        if line and not line.startswith(" "):
            is_list = line.rstrip(":").endswith("Commands")
        elif is_list and (row := re.match(r"  ([a-z]+)\*? ", line)):
            yield row[1]


def _commands() -> list[str]:
    top = [name for name in _listed() if name not in GROUPS]
    return [*top, *(f"{group} {name}" for group in GROUPS for name in _listed(group))]


@pytest.mark.skipif(shutil.which("docker") is None, reason="no docker command line on this machine")
def test_every_command_is_tested_or_refused() -> None:
    tested = _run_by_tests()
    missing = []
    for command in _commands():
        group = command.partition(" ")[0]
        plain = SAME.get(command, command.removeprefix("container "))
        is_exempt = group in REFUSED or (group in CLIENT_SIDE and command != "builder prune")
        if not is_exempt and plain not in tested and command not in tested:
            missing.append(command)
    assert missing == []
