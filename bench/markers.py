"""The part of a page that is made by a program, between two comments that no reader sees."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Part:
    """What ``maker`` writes in a page; what is around it is written by hand."""

    file: Path
    maker: str

    @property
    def begin(self) -> str:
        """The comment before it."""
        return f"<!-- made by {self.maker} -->"

    @property
    def end(self) -> str:
        """The comment after it."""
        return f"<!-- end of what {self.maker} made -->"

    def read(self) -> str:
        """What is there now. Raises ValueError if the page has not both comments."""
        return self._split()[1]

    def write(self, text: str) -> None:
        """Put that there instead."""
        before, _, after = self._split()
        self.file.write_text(before + text + after)

    def _split(self) -> tuple[str, str, str]:
        """The page before it, it, and after it; the comments are not of it."""
        page = self.file.read_text()
        before, begin, rest = page.partition(f"{self.begin}\n")
        text, end, after = rest.partition(self.end)
        if not (begin and end):
            raise ValueError(f"{self.file} has not both {self.begin} and {self.end}")
        return before + begin, text, end + after
