"""The deadline page for a router that may start before the database's guard has made it."""

from pathlib import Path

from primacy.errors import Unavailable
from primacy.runtime.page import PageReader


class LatePage:
    """`permits(epoch)`: false until there is a page. None: this host has no database."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._reader: PageReader | None = None

    def permits(self, epoch: int) -> bool:
        if self._reader is None:
            if self._path is None:
                return False
            try:
                self._reader = PageReader(self._path)
            except Unavailable:
                return False
        return self._reader.permits(epoch)
