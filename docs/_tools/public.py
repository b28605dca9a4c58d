"""Every public name of the package is in the reference, and documented there; else a warning.

A warning ends the build. Public is what a module lists in `__all__`, or defines where it has no
such list, and what any example imports.
"""

from __future__ import annotations

import inspect
import logging
import pkgutil
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page
from mkdocstrings import Inventory

import commlib

INVENTORY = "objects.inv"
IMPORT = re.compile(r"^from (commlib[\w.]*) import (\([^)]*\)|.*)$", re.MULTILINE)
PASSED_ON = re.compile(r"\b(\w+) as \1\b")  # by the conventions of typing, it is public then
NOT_FOR_PROGRAMS = "commlib.cli"  # the command line, which has a page of its own

log = logging.getLogger("mkdocs.hooks.public")
imported: set[str] = set()


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Note what the examples of a page import; the package itself may import what it likes."""
    if page.file.src_uri.startswith("src/"):
        return markdown
    for module, names in IMPORT.findall(markdown):
        for name in re.sub(r"#.*", "", names).strip("()").split(","):
            if name.strip():
                imported.add(f"{module}.{name.split(' as ')[0].strip()}")
    return markdown


def on_post_build(config: MkDocsConfig) -> None:
    """Compare what there is with what the reference has."""
    with (Path(config.site_dir) / INVENTORY).open("rb") as file:
        shown = Inventory.parse_sphinx(file)
    for name in sorted(set(public_names()) | imported):
        if name not in shown and _own_name(name) not in shown:
            log.warning("%s is not in the reference: add it to a page in docs/reference", name)
        elif not _is_documented(name):
            log.warning("%s has no docstring", name)


def public_names() -> Iterator[str]:
    """The names of all public modules, and of what is public in them."""
    for found in pkgutil.walk_packages(commlib.__path__, "commlib."):
        if "._" in found.name or found.name.startswith(NOT_FOR_PROGRAMS):
            continue
        yield found.name
        for name in listed(import_module(found.name)):
            yield f"{found.name}.{name}"


def listed(module: ModuleType) -> list[str]:
    """What a module has for programs to use: its `__all__`, or what it defines and passes on."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    own = [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and isinstance(value, type | FunctionType)
        and value.__module__ == module.__name__
    ]
    return [*own, *PASSED_ON.findall(inspect.getsource(module))]


def _own_name(name: str) -> str:
    """The name that a class or function has where it was made; of other values theirs."""
    value = _value(name)
    if isinstance(value, type | FunctionType):
        return f"{value.__module__}.{value.__qualname__}"
    return name


def _is_documented(name: str) -> bool:
    """Whether a class, function or module has a docstring of its own; other values have none."""
    value = _value(name)
    if isinstance(value, type):
        return bool(value.__dict__.get("__doc__"))
    return bool(value.__doc__) or not isinstance(value, FunctionType | ModuleType)


def _value(name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError:
        module, _, attribute = name.rpartition(".")
        return getattr(import_module(module), attribute)
