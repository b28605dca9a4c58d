"""Pages of the site that lie elsewhere in the repository, and the links to and from them.

In the repository a link is relative to the file that has it, so that it leads somewhere when that
is read as it is: `../README.md` in a page of docs/, `docs/brokers.md` in the README. On the site
all pages lie in one tree; here each link is made to lead to the same text there. One to a file that
the repository does not have, or the site does not, is a warning, and a warning ends the build.
"""

from __future__ import annotations

import logging
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
DOCS = "docs"
OTHERS = {
    "README.md": "readme.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "examples/README.md": "examples/programs.md",
    **{
        f"bench/results/{path.name}": f"bench/{path.name}"
        for path in (ROOT / "bench/results").glob("*.md")
    },
}
"""Pages outside docs/, and where they are on the site."""
FOLDERS = {"examples": "examples/README.md", "docs": "docs/index.md"}
"""What is shown where a link leads to a folder."""

FENCED = re.compile(r"^(```|~~~).*?^\1", re.DOTALL | re.MULTILINE)
CODE_IN_ROW = re.compile(r"(?<!`)`[^`\n]+`")  # where the bar of a table is no bar anyway
ITEM = re.compile(r"(?:[*-]|\d+\.) +")
LANGUAGES = {".py": "python", ".toml": "toml", ".yaml": "yaml"}
LINK = re.compile(r"(\]\()(?![a-z]+:|#)([^)\s#]+)")


def _linked() -> Iterator[Path]:
    """The files to which pages have links."""
    for page in (*(ROOT / DOCS).glob("*.md"), *(ROOT / source for source in OTHERS)):
        for _, target in LINK.findall(page.read_text()):
            yield (page.parent / target).resolve()


def _programs() -> dict[str, str]:
    files = {*(ROOT / "examples").rglob("*.*"), *_linked()}
    names = [str(path.relative_to(ROOT)) for path in files if path.suffix in LANGUAGES]
    return {name: f"{name}.md" for name in sorted(names) if (ROOT / name).exists()}


PROGRAMS = _programs()
"""Programs, and files of theirs, each shown on a page of its own."""

log = logging.getLogger("mkdocs.hooks.repository")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of elsewhere."""
    for source, page in OTHERS.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    for source, page in PROGRAMS.items():
        text = (ROOT / source).read_text()
        shown = f"# {source}\n\n```{LANGUAGES[Path(source).suffix]}\n{text}```\n"
        files.append(File.generated(config, page, content=shown))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let its links lead to where the site has what they mean."""
    source = source_of(page.file.src_uri)

    def led(found: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), found[2]))
        return found[1] + _relative(target, page.file.src_uri, source)

    parts, end = [], 0
    for fenced in FENCED.finditer(markdown):
        parts += [_adapted(LINK.sub(led, markdown[end : fenced.start()])), fenced[0]]
        end = fenced.end()
    return "".join([*parts, _adapted(LINK.sub(led, markdown[end:]))])


def _adapted(markdown: str) -> str:
    """Prose as the Markdown of the site has it, which differs from that of GitHub."""
    return CODE_IN_ROW.sub(lambda code: code[0].replace(r"\|", "|"), indented(markdown))


def indented(markdown: str) -> str:
    """The same with four spaces before what belongs to an item of a list.

    CommonMark, and so GitHub, wants as many as the marker is long; the Markdown of the site, four.
    """
    lines, of_marker = [], 0
    for line in markdown.split("\n"):
        indent = len(line) - len(line.lstrip())
        if found := ITEM.match(line):
            of_marker = len(found[0])
        elif line and not indent:
            of_marker = 0
        deep = indent >= of_marker > 0 and line
        lines.append(f"{' ' * (4 - of_marker)}{line}" if deep else line)
    return "\n".join(lines)


def source_of(page: str) -> str:
    """Where in the repository a page of the site comes from."""
    for source, there in (OTHERS | PROGRAMS).items():
        if there == page:
            return source
    return f"{DOCS}/{page}"


def _relative(target: str, page: str, source: str) -> str:
    """The link from a page of the site to a file of the repository."""
    target = FOLDERS.get(target, target)
    if not (ROOT / target).exists():
        log.warning("%s: there is no %s in the repository", source, target)
    there = (OTHERS | PROGRAMS).get(target) or target.removeprefix(f"{DOCS}/")
    return posixpath.relpath(there, posixpath.dirname(page) or ".")
