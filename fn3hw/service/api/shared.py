"""What all routes share: the open parts of the server, who asks, pages of rows, and the error body."""

from __future__ import annotations

import base64
import binascii
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, TypeVar
from urllib.parse import urlsplit

from fastapi import Depends, Path, Query, Request
from fastapi.security import APIKeyCookie, HTTPBearer
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Integer, Select, literal, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session
from sqlalchemy.types import TypeEngine

from fn3hw.errors import Fn3hwError, InfeasibleBudget, InputError
from fn3hw.service import tokens
from fn3hw.service.atlases import Atlases
from fn3hw.service.database import Database
from fn3hw.service.errors import Forbidden, Unauthorized
from fn3hw.service.jobs.child import is_locked
from fn3hw.service.jobs.desk import Desk
from fn3hw.service.limits import Limiter, Pace
from fn3hw.service.models import Moment
from fn3hw.service.settings import Settings
from fn3hw.service.storage import Storage
from fn3hw.service.tokens import Holder

PREFIX = "/v1"
COOKIE = "fn3hw_login"
KNOWN_S, RENEWAL_S = 5.0, 1.0
MOST_KNOWN = 4096
Item = TypeVar("Item")
Row = TypeVar("Row")


@dataclass
class Parts:
    """The open parts of a server.

    Args:
        settings: of the process.
        database: has the rows.
        storage: has the files.
        desk: takes jobs.
        atlases: answer lookups.
    """

    settings: Settings
    database: Database
    storage: Storage
    desk: Desk
    atlases: Atlases
    limiter: Limiter = field(init=False)
    pace: Pace = field(init=False)
    holders: KnownHolders = field(init=False)

    def __post_init__(self) -> None:
        self.limiter = Limiter(self.settings.requests_per_s)
        self.pace = Pace(lambda: is_locked(self.settings.measured))
        self.holders = KnownHolders(self.database)


class KnownHolders:
    """Who holds which token, remembered for seconds: a token that is revoked stays good for no longer."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: OrderedDict[str, tuple[Holder, float]] = OrderedDict()
        self._lock = threading.Lock()

    def recall(self, kind: str, secret: str) -> Holder | None:
        """The holder, if it was asked for lately."""
        key = f"{kind}:{tokens.digest(secret)}"
        found = self._known.get(key)
        if found is None:
            return None
        if found[1] > time.monotonic():
            return found[0]
        with self._lock:  # one request asks anew; others need not wait for it
            self._known[key] = found[0], time.monotonic() + RENEWAL_S
        return None

    def find(self, kind: str, secret: str) -> Holder:
        """The holder of a ``"token"`` or a ``"cookie"``.

        Raises:
            Unauthorized: there is none.
        """
        find = tokens.holder_of if kind == "token" else tokens.holder_of_cookie
        try:
            holder = find(self._database, secret)
        except Unauthorized:
            with self._lock:
                self._known.pop(f"{kind}:{tokens.digest(secret)}", None)
            raise
        with self._lock:
            self._known[f"{kind}:{tokens.digest(secret)}"] = holder, time.monotonic() + KNOWN_S
            while len(self._known) > MOST_KNOWN:
                self._known.popitem(last=False)
        return holder

    def forget(self) -> None:
        """Ask anew from now on."""
        with self._lock:
            self._known.clear()


def parts_of(request: Request) -> Parts:
    """The open parts of the server that a request came to."""
    found: Parts = request.app.state.parts
    return found


PartsOf = Annotated[Parts, Depends(parts_of)]
_bearer = HTTPBearer(auto_error=False, description="A token of this server: fn3hw token create")
_cookie = APIKeyCookie(name=COOKIE, auto_error=False, description="The cookie of a browser that is logged in.")


def needs(scope: str) -> Any:
    """A dependency: the holder of the token, whose scope is enough."""

    async def holder(
        request: Request,
        parts: PartsOf,
        given: Annotated[Any, Depends(_bearer)] = None,
        cookie: Annotated[str | None, Depends(_cookie)] = None,
    ) -> Holder:
        kind, secret = ("token", given.credentials) if given is not None else ("cookie", cookie)
        if not secret:
            raise Unauthorized("This needs a token.", hint="Send it as: Authorization: Bearer TOKEN")
        found = parts.holders.recall(kind, secret)
        if found is None:
            address = request.client.host if request.client else ""
            parts.limiter.check_failures(address)
            try:
                found = await request.app.state.in_thread(lambda: parts.holders.find(kind, secret))
            except Unauthorized:
                parts.limiter.failed(address)
                raise
        if kind == "cookie" and request.method not in ("GET", "HEAD"):
            check_origin(request)
        request.state.holder = found
        parts.limiter.check(found.token_id)
        found.check(scope)
        await parts.pace.turn()
        return found

    return Depends(holder)


Reader = Annotated[Holder, needs("read")]
Submitter = Annotated[Holder, needs("submit")]
Admin = Annotated[Holder, needs("admin")]


def check_origin(request: Request) -> None:
    """Raise `Forbidden` where a browser sends another site's wish along with the cookie of this one."""
    origin = request.headers.get("origin") or request.headers.get("referer") or ""
    if urlsplit(origin).netloc != request.headers.get("host"):
        raise Forbidden("A logged-in browser may change things from this server's own pages alone.")


class Model(BaseModel):
    """What the API takes and gives."""

    model_config = ConfigDict(extra="forbid", from_attributes=True)


class ErrorInfo(Model):
    """What happened, why, and what to do next: as in the shell."""

    code: str
    message: str
    hint: str
    exit_status: int
    job_id: str | None = None
    limit: str | None = None
    best: float | None = None


class ErrorBody(Model):
    """The body of every error."""

    error: ErrorInfo


_ERROR_BODY = "#/components/schemas/ErrorBody"
ERRORS: dict[int | str, dict[str, Any]] = {
    # Said in full: of a route that gives plain text, FastAPI would say that its errors are plain text, too.
    status: {"description": text, "content": {"application/json": {"schema": {"$ref": _ERROR_BODY}}}}
    for status, text in (
        (400, "The request cannot be read."),
        (401, "No token, or one that is not valid."),
        (403, "The token's scope is too small."),
        (404, "Nothing has that id."),
        (405, "There is no such method here."),
        (409, "What is there already stands against it."),
        (413, "The body is too large."),
        (422, "Something in it does not fit."),
        (429, "More requests than allowed."),
        (503, "The database or the storage cannot be used just now."),
    )
}


def error_info(error: Fn3hwError, job_id: str | None = None) -> dict[str, Any]:
    """An error as its body."""
    body: dict[str, Any] = {
        "code": error.code,
        "message": error.message,
        "hint": error.hint,
        "exit_status": error.exit_status,
        "job_id": job_id,
        "limit": None,
        "best": None,
    }
    if isinstance(error, InfeasibleBudget):
        body |= {"limit": error.limit, "best": error.best}
    return {"error": body}


class Page(Model, Generic[Item]):
    """Some items, the newest first, and how to ask for those after them: ``?after=NEXT``."""

    items: list[Item]
    next: str | None = Field(None, description="Null on the last page.")


Id = Annotated[str, Path(min_length=1, max_length=80, pattern=r"^[A-Za-z0-9._-]+$")]
Limit = Annotated[int, Query(ge=1, le=500, description="Items a page.")]
After = Annotated[str | None, Query(max_length=300, description="What the page before gave as `next`.")]


def paged(
    session: Session,
    query: Select[Row],
    by: Sequence[InstrumentedAttribute[Any]],
    limit: int,
    after: str | None,
    make: Callable[[Row], Item],
) -> Page[Item]:
    """A page of a query.

    Args:
        session: open.
        query: of rows, with its filters.
        by: columns that order rows, descending; together they differ for all rows. The first one is a time or a name.
        limit: items a page.
        after: where the page before ended.
        make: an item of a row.

    Raises:
        InputError: ``after`` is none of those that pages give.
    """
    if after is not None:
        query = query.where(tuple_(*by) < tuple_(*_position(after, by)))
    rows = list(session.scalars(query.order_by(*(column.desc() for column in by)).limit(limit + 1)))
    following = None
    if len(rows) > limit:
        rows.pop()
        values = [getattr(rows[-1], column.key) for column in by]
        text = json.dumps([value.isoformat() if isinstance(value, datetime) else value for value in values])
        following = base64.urlsafe_b64encode(text.encode()).decode()
    return Page(items=[make(row) for row in rows], next=following)


def _position(after: str, by: Sequence[InstrumentedAttribute[Any]]) -> list[Any]:
    try:
        values = json.loads(base64.b64decode(after.encode(), altchars=b"-_", validate=True))
        return [literal(_value(one, column.type), column.type) for one, column in zip(values, by, strict=True)]
    except (ValueError, TypeError, OverflowError, binascii.Error, RecursionError) as error:
        raise InputError("`after` is no `next` that this server gave.", hint="Begin at the first page.") from error


def _value(one: Any, kind: TypeEngine[Any]) -> Any:
    if isinstance(kind, Moment):
        return datetime.fromisoformat(one).astimezone(UTC)
    whole = isinstance(kind, Integer)
    if not (type(one) is int and abs(one) < 2**63 if whole else type(one) is str and "\x00" not in one):
        raise ValueError(one)
    if not whole:
        one.encode()  # half of a pair of surrogates is no text
    return one
