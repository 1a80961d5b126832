"""In and out: a token becomes a cookie, which scripts cannot read and other sites cannot send."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import RedirectResponse, Response

from fn3hw.service import tokens
from fn3hw.service.api.shared import COOKIE, PartsOf, check_origin
from fn3hw.service.errors import TooMany, Unauthorized, status_of
from fn3hw.service.models import now
from fn3hw.service.pages.shared import Cookie, Form, local_path, page

router = APIRouter()
Next = Annotated[str, Query(max_length=2000)]


@router.get("/login")
def ask_for_token(request: Request, next: Next = "/") -> Response:
    """Where a token is given."""
    return page(request, "login.html", None, next=local_path(next), error=None)


@router.post("/login")
def log_in(request: Request, parts: PartsOf, form: Form) -> Response:
    """Give a browser its cookie, and send it on to where it came from."""
    check_origin(request)
    address = request.client.host if request.client else ""
    onward = local_path(str(form.get("next", "/")))
    try:
        parts.limiter.check_failures(address)
        cookie, end = tokens.log_in(parts.database, str(form.get("token", "")).strip())
    except (TooMany, Unauthorized) as error:
        headers = {}
        if isinstance(error, TooMany):
            headers["Retry-After"] = f"{max(1, round(error.after_s))}"
        else:
            parts.limiter.failed(address)
        return page(request, "login.html", None, status=status_of(error), headers=headers, next=onward, error=error)
    request.state.holder = parts.holders.find("cookie", cookie)
    response = RedirectResponse(onward, status_code=303)
    response.set_cookie(
        COOKIE,
        cookie,
        max_age=max(0, round((end - now()).total_seconds())),
        path="/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )
    return response


@router.post("/logout")
def log_out(request: Request, parts: PartsOf, cookie: Cookie = None) -> Response:
    """Forget a browser."""
    check_origin(request)
    if cookie:
        tokens.log_out(parts.database, cookie)
        parts.holders.forget()
    response = RedirectResponse("/login", status_code=303)
    response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
    return response
