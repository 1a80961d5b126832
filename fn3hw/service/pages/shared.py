"""What all pages share: templates, who looks at them, forms, and errors as pages."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import quote, urlsplit

from fastapi import Depends, Request
from fastapi.security import APIKeyCookie
from jinja2 import Environment, PackageLoader, StrictUndefined
from sqlalchemy.orm import defer
from starlette.datastructures import FormData
from starlette.responses import HTMLResponse, RedirectResponse, Response

import fn3hw
from fn3hw.errors import Fn3hwError
from fn3hw.service.api.shared import COOKIE, PartsOf, needs
from fn3hw.service.errors import Unauthorized
from fn3hw.service.models import Job
from fn3hw.service.pages import formats
from fn3hw.service.pages.kept import Kept
from fn3hw.service.tokens import SCOPES, Holder

MOST_SHOWN = 100
"""Rows of a list that is not paged, and entries of a menu."""
_TEMPLATES = Environment(
    loader=PackageLoader("fn3hw.service.pages"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters.update(formats.FILTERS)
_TEMPLATES.globals["version"] = fn3hw.__version__
_cookie = APIKeyCookie(name=COOKIE, auto_error=False)
Cookie = Annotated[str | None, Depends(_cookie)]


class LoginNeeded(Unauthorized):
    """A browser is not logged in: it is sent to where it can be."""


def sees(scope: str) -> Any:
    """A dependency: who looks at a page, with a scope that is enough; others are sent to the login."""
    check = needs(scope).dependency

    async def viewer(request: Request, parts: PartsOf, cookie: Cookie = None) -> Holder:
        try:
            found: Holder = await check(request, parts, None, cookie)
        except Unauthorized as error:
            raise LoginNeeded(error.message, hint=error.hint) from error
        return found

    return Depends(viewer)


Viewer = Annotated[Holder, sees("read")]
Asker = Annotated[Holder, sees("submit")]
Administrator = Annotated[Holder, sees("admin")]


async def to_login(request: Request, _: Exception) -> Response:
    """Send a browser to the login, and from there back to where it was."""
    back = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    if request.method not in ("GET", "HEAD") or is_part(request):
        came = urlsplit(request.headers.get("referer", ""))
        back = came.path + (f"?{came.query}" if came.query else "")
    where = f"/login?next={quote(local_path(back), safe='')}"
    if is_part(request):
        return Response(headers={"HX-Redirect": where})
    return RedirectResponse(where, status_code=303)


def local_path(text: str) -> str:
    r"""A path of this server, or ``/`` where a text is none.

    Browsers drop tabs and newlines from addresses and take ``\`` for ``/``, and ``//host`` is another host.
    """
    is_plain = all(" " < character != "\\" and character != "\x7f" for character in text)
    return text if text.startswith("/") and not text.startswith("//") and is_plain else "/"


IN_LISTS = (defer(Job.log, raiseload=True), defer(Job.result, raiseload=True))
"""Of jobs in a list, what is long stays in the database."""


async def _form(request: Request) -> FormData:
    return await request.form(max_files=0, max_fields=200)


Form = Annotated[FormData, Depends(_form)]


def kept_of(request: Request) -> Kept:
    """What pages keep in memory."""
    found: Kept = request.app.state.kept
    return found


KeptOf = Annotated[Kept, Depends(kept_of)]


def is_part(request: Request) -> bool:
    """Whether a script asks for a part of a page, to put it in its place."""
    return request.headers.get("hx-request") == "true"


def page(
    request: Request,
    template: str,
    viewer: Holder | None,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    **values: Any,
) -> Response:
    """A page, or only its part where a script asks for it.

    Args:
        request: that it answers.
        template: its file.
        viewer: who looks at it; nobody is logged in where it is None.
        status: of HTTP.
        headers: further ones.
        values: of the template.
    """
    rank = SCOPES.index(viewer.scope) if viewer is not None else -1
    text = _TEMPLATES.get_template(template).render(
        values,
        viewer=viewer,
        path=request.url.path,
        layout="part.html" if is_part(request) else "base.html",
        may_submit=rank >= SCOPES.index("submit"),
        may_administer=rank >= SCOPES.index("admin"),
    )
    return HTMLResponse(text, status_code=status, headers=dict(headers or {}))


def wants_page(request: Request) -> bool:
    """Whether an error is to be a page: a browser asked, and not the API."""
    path = request.url.path
    if path == "/v1" or path.startswith("/v1/"):
        return False
    return is_part(request) or "text/html" in request.headers.get("accept", "")


def error_page(request: Request, error: Fn3hwError, status: int, headers: Mapping[str, str] | None = None) -> Response:
    """An error as a page, or as a part of one."""
    viewer = getattr(request.state, "holder", None)
    return page(request, "error.html", viewer, status=status, headers=headers, error=error, status_code=status)


def packed(request: Request, body: bytes, *, tag: str) -> Response:
    """JSON that was compressed before, which a browser may keep.

    Args:
        request: that it answers.
        body: JSON, compressed by gzip.
        tag: another one for another content.
    """
    headers = {"Cache-Control": "private, max-age=3600", "ETag": f'"{tag}"', "Vary": "Accept-Encoding, Cookie"}
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
    else:
        body = gzip.decompress(body)
    return Response(body, media_type="application/json", headers=headers)
