"""What no payload can reach: nothing here runs what it reads."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import commlib

SOURCES = sorted(Path(commlib.__file__).parent.rglob("*.py"))
FORBIDDEN = {
    *("eval", "exec", "compile", "__import__"),
    *("pickle", "cPickle", "marshal", "shelve", "dill", "jsonpickle", "code", "codeop"),
    *("yaml.load", "yaml.unsafe_load", "yaml.full_load", "os.system", "os.popen"),
    *("ssl._create_unverified_context", "ssl.CERT_NONE", "ssl.CERT_OPTIONAL", "ssl.wrap_socket"),
}
"""Names that turn data into code, and those that leave TLS unchecked."""
UNCHECKED = {"check_hostname", "verify_mode", "shell"}
"""What is never set at all."""


def used(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """The lines and names of all that is called, read from a module, or imported."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, node.module or ""
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield node.lineno, f"{node.value.id}.{node.attr}"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.lineno, node.func.id


def settings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """The lines and names of keyword arguments, and of attributes that are assigned."""
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword):
            yield node.value.lineno, node.arg or ""
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_nothing_runs_what_it_reads_and_tls_is_never_left_unchecked(source: Path) -> None:
    tree = ast.parse(source.read_text(encoding="utf8"))
    assert [found for found in used(tree) if found[1] in FORBIDDEN] == []
    assert [found for found in settings(tree) if found[1] in UNCHECKED] == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from pickle import loads",
        "eval('1')",
        "import yaml; yaml.load(f)",
        "from ssl import CERT_NONE",
        "context.check_hostname = False",
        "run('ls', shell=True)",
    ],
)
def test_what_is_looked_for_is_found(line: str) -> None:
    tree = ast.parse(line)
    found = {name for _, name in used(tree)} & FORBIDDEN
    assert found or {name for _, name in settings(tree)} & UNCHECKED
