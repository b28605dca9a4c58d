"""Notebook, a made-up broker: a file that the programs of one machine write into.

What is said is for all who read, what is given for one of those who take it. SQLite sees to it that
they do not get in each other's way, threads neither.
"""

import sqlite3
from threading import Lock

KEPT = 100_000  # of what was said; who is further behind misses something
TABLES = """
PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF;
CREATE TABLE IF NOT EXISTS said (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT, payload BLOB);
CREATE TABLE IF NOT EXISTS given (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT, payload BLOB);
CREATE INDEX IF NOT EXISTS queues ON given (name, id);
"""
SAY = "INSERT INTO said (name, payload) VALUES (?, ?) RETURNING id"
GIVE = "INSERT INTO given (name, payload) VALUES (?, ?)"
FIRST = "SELECT min(id) FROM given WHERE name = ?"


class Notebook:
    """The file, open."""

    def __init__(self, path: str) -> None:
        self.file = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self.file.executescript(TABLES)
        self.lock = Lock()

    def run(self, statement: str, *values: object) -> list[tuple]:
        with self.lock:  # SQLite waits for other programs, not for what we have begun ourselves
            return self.file.execute(statement, values).fetchall()

    def say(self, name: str, payload: bytes) -> None:
        ((number,),) = self.run(SAY, name, payload)
        if number % 1000 == 0:
            self.run("DELETE FROM said WHERE id <= ?", number - KEPT)

    def newest(self) -> int:
        """The number of what was said last."""
        ((number,),) = self.run("SELECT coalesce(max(id), 0) FROM said")
        return number

    def said_since(self, number: int) -> list[tuple[int, str, bytes]]:
        """What was said after that: number, name and payload."""
        return self.run("SELECT * FROM said WHERE id > ? ORDER BY id", number)

    def give(self, name: str, payload: bytes) -> None:
        self.run(GIVE, name, payload)

    def take(self, name: str) -> bytes | None:
        """The oldest that is there, if any; nobody else gets it."""
        while (first := self.run(FIRST, name)[0][0]) is not None:
            for (payload,) in self.run("DELETE FROM given WHERE id = ? RETURNING payload", first):
                return payload  # else somebody was quicker
        return None

    def close(self) -> None:
        self.file.close()
