"""All that is shown of a record: its tables, the README's, and the pictures of the docs.

    make pages                        # of the newest record
    python -m bench.shown FILE        # of that one

A whole run ends with it; by hand it is for those who change how something is shown.
"""

from __future__ import annotations

import sys
from pathlib import Path

from bench import front, gallery, plots, report, shortfalls
from bench.record import Record, newest


def write(file: Path) -> list[Path]:
    """Make it all anew, of the record in this file; returns what was written."""
    record = Record.read(file)
    report.PAGE.write_text(report.document(record))
    front.PART.write(front.text(record))
    shortfalls.PART.write(shortfalls.text(record))
    pictures = plots.write(file)
    if gallery.SCALE.exists():
        pictures += plots.write(gallery.SCALE)
    gallery.PART.write(gallery.text())
    return [report.PAGE, front.PART.file, gallery.PART.file, *pictures]


if __name__ == "__main__":
    for page in write(Path(sys.argv[1]) if len(sys.argv) > 1 else newest()):
        print(page)
