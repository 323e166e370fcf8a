"""Rows of results: one JSON object a line, in a file that grows as runs end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Rows:
    """Rows of one file; what is in it need not be run again.

    Parameters
    ----------
    path
        The file; it need not exist yet.
    key
        Names of the values that tell one run from another.
    """

    def __init__(self, path: Path, key: tuple[str, ...]) -> None:
        self.path, self.key = path, key

    def all(self) -> list[dict[str, Any]]:
        return read(self.path)

    def has(self, **row: Any) -> bool:
        """Whether there is a row with the same key."""
        return any(all(each.get(part) == row.get(part) for part in self.key) for each in self.all())

    def append(self, **row: Any) -> None:
        with self.path.open('a') as file:
            file.write(json.dumps(row) + '\n')
        print({name: value for name, value in row.items() if not isinstance(value, list)}, flush=True)

    def measure(self, row: dict[str, Any], function: Callable[..., dict[str, Any]], *arguments: Any) -> None:
        """Append ``row`` with what ``function(*arguments)`` returns, if there is no such row yet."""
        if not self.has(**row):
            self.append(**row, **function(*arguments))


def read(path: Path) -> list[dict[str, Any]]:
    """Return all rows of a file, none where there is no such file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def of_recipe(path: Path, recipe: str | None = None) -> list[dict[str, Any]]:
    """Return the rows of a recipe, by default that of the last row."""
    rows = read(path)
    recipe = recipe or (rows[-1]['recipe'] if rows else None)
    return [row for row in rows if row['recipe'] == recipe]
