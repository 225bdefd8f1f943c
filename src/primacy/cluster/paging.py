"""The deadline page as the agent sees it: closed where there is none, or its guard is dead."""

from pathlib import Path

from primacy.cluster.view import PageView
from primacy.errors import Conflict, Unavailable
from primacy.model import Epoch
from primacy.runtime.page import Page, PageReader, PageState, close_page
from primacy.runtime.processes import boot_id, process_start_time


class PageSight:
    """Call it for the page as it stands. A page that a dead guard left open is closed first:
    only a live guard may keep one open, and a host that lost its power comes back with neither."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reader: PageReader | None = None

    def __call__(self) -> PageView:
        page = self._read()
        if page is None or page.boot != boot_id():
            return PageView()
        if page.state is not PageState.CLOSED and not _lives(page):
            try:
                page = close_page(self._path)
            except Conflict:
                page = self._read() or page  # A guard took it over this very moment.
        return PageView(
            epoch=Epoch(page.epoch),
            state=page.state.name.lower(),
            closed_epoch=Epoch(page.highest_closed),
        )

    def _read(self) -> Page | None:
        if self._reader is None:
            try:
                self._reader = PageReader(self._path)
            except Unavailable:
                return None
        return self._reader.read()


def _lives(page: Page) -> bool:
    return process_start_time(page.guard.pid) == page.guard.started
