"""What every typed request begins and ends with: a version of the atlas, a page and a form."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import pyarrow as pa
from fastapi import Depends, Query, Request
from fastapi.responses import Response

from api.paging import DEFAULT_ROWS, MAX_ROWS, Cursor
from api.replies import check_changed, choose_media_type, finish, write_document, write_rows
from api.settings import ServeSettings
from store.atlas import Atlas


@dataclass(frozen=True)
class Reading:
    """One typed request: which atlas answers it, and in which form."""

    request: Request
    atlas: Atlas
    version: str
    media_type: str

    @property
    def settings(self) -> ServeSettings:
        """Of the server."""
        settings: ServeSettings = self.request.app.state.settings
        return settings

    def reply(self, document: dict[str, object]) -> Response:
        """A document, with the version as its first field."""
        body = write_document({"version": self.version, **document}, self.media_type)
        return finish(self.request, body, self.media_type, self.version)

    def reply_rows(self, rows: pa.Table) -> Response:
        """A table that is short enough for one page."""
        return self._reply_page(rows, None)

    def _reply_page(
        self, rows: pa.Table, cursor: str | None, n_matches: int | None = None
    ) -> Response:
        head = {"version": self.version, "n_rows": rows.num_rows, "next": cursor}
        headers = {"X-Rows": str(rows.num_rows)}
        if n_matches is not None:
            head["n_matches"] = n_matches
            headers["X-Total-Rows"] = str(n_matches)
        body = write_rows(rows, self.media_type, head)
        if cursor is not None:
            self.request.app.state.service.keep(self.version, self.atlas)
            following = self.request.url.include_query_params(cursor=cursor).query
            headers |= {"X-Next-Cursor": cursor, "Link": f'<?{following}>; rel="next"'}
        return finish(self.request, body, self.media_type, self.version, headers)


@dataclass(frozen=True)
class PagedReading(Reading):
    """One typed request for a page of rows."""

    limit: int
    offset: int

    def reply_page(self, read: Callable[[int, int], pa.Table]) -> Response:
        """The page that `read` gives for a limit and an offset; one row more tells of the next."""
        rows = read(self.limit + 1, self.offset)
        end = self.offset + self.limit
        more = Cursor(self.version, end).to_text() if rows.num_rows > self.limit else None
        return self._reply_page(rows.slice(0, self.limit), more)

    def reply_matches(self, read: Callable[[int, int], tuple[pa.Table, int]]) -> Response:
        """The same where `read` also says how many rows all pages have."""
        rows, n_matches = read(self.limit, self.offset)
        end = self.offset + self.limit
        more = Cursor(self.version, end).to_text() if n_matches > end else None
        return self._reply_page(rows, more, n_matches)

    def reply_slice(self, rows: pa.Table) -> Response:
        """A page of a table that was read whole."""
        return self.reply_page(lambda limit, offset: rows.slice(offset, limit))


async def begin(request: Request) -> Reading:
    """The reading of a reply that has no pages."""
    version, atlas = request.app.state.service.current
    media_type = choose_media_type(request)
    check_changed(request, version)
    return Reading(request, atlas, version, media_type)


async def begin_page(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=MAX_ROWS, description="Most rows of the page.")] = (
        DEFAULT_ROWS
    ),
    cursor: Annotated[
        str | None, Query(max_length=200, description="`next` of the page before.")
    ] = None,
) -> PagedReading:
    """The reading of a page; a cursor says of which version."""
    version, atlas = request.app.state.service.current
    offset = 0
    if cursor is not None:
        at = Cursor.from_text(cursor)
        version, offset = at.version, at.offset
        atlas = request.app.state.service.at(version)
    media_type = choose_media_type(request)
    check_changed(request, version)
    return PagedReading(request, atlas, version, media_type, limit, offset)


Whole = Annotated[Reading, Depends(begin)]
Paged = Annotated[PagedReading, Depends(begin_page)]
