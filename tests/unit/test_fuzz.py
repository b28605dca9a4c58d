"""What coverage-guided fuzzing has found goes through again: each file of its corpus, each target.

A file stands for a way through the code, or for a crash that was mended. See `fuzz`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from fuzz import CORPUS, ROOT, TARGETS, target

FILES = [file for name in TARGETS for file in sorted((CORPUS / name).iterdir())]


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}-{file.name}")
def test_an_input_of_the_corpus_is_survived(file: Path) -> None:
    target(file.parent.name)(file.read_bytes())


def test_every_target_has_a_corpus_and_every_corpus_a_target() -> None:
    assert {file.parent.name for file in FILES} == set(TARGETS)
    assert {folder.name for folder in CORPUS.iterdir()} == set(TARGETS)


def test_the_corpus_is_small() -> None:
    assert sum(file.stat().st_size for file in FILES) < 100_000


def test_the_targets_do_without_the_engine() -> None:
    """It has wheels for few machines, so only `make fuzz` installs it."""
    code = (
        "import sys; sys.modules['atheris'] = None\n"
        "import fuzz\n"
        "for name in fuzz.TARGETS: fuzz.target(name)(b'')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
