"""Tokens and the audit log, for administrators; and who one is."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Response
from pydantic import Field
from sqlalchemy import select

from fn3hw.service import tokens
from fn3hw.service.api.shared import ERRORS, PREFIX, Admin, After, Limit, Model, Page, PartsOf, Reader, paged
from fn3hw.service.models import Entry, Token

router = APIRouter(prefix=PREFIX, tags=["access"], responses=ERRORS)
Scope = Literal["read", "submit", "admin"]


class Me(Model):
    """Whom the token of a request belongs to."""

    token_id: str
    scope: Scope
    expires_at: datetime | None


class TokenModel(Model):
    """A token without its secret."""

    id: str
    name: str
    scope: Scope
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    used_at: datetime | None


class NewToken(Model):
    """A token to be made."""

    name: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\x00]*\S[^\x00]*$")]
    scope: Scope
    days: Annotated[float | None, Field(gt=0, le=36500)] = None


class MadeToken(Model):
    """A new token: it is shown this once."""

    token: str


class EntryModel(Model):
    """A line of the audit log."""

    number: int
    at: datetime
    token_id: str | None
    action: str
    target: str
    status: int


@router.get("/me")
def me(holder: Reader) -> Me:
    """Whom the token belongs to."""
    return Me(token_id=holder.token_id, scope=holder.scope, expires_at=holder.expires_at)


@router.get("/tokens")
def list_tokens(_: Admin, parts: PartsOf, limit: Limit = 50, after: After = None) -> Page[TokenModel]:
    """All tokens, the newest first."""
    with parts.database.reading() as session:
        return paged(session, select(Token), [Token.created_at, Token.id], limit, after, _token)


@router.post("/tokens", status_code=201)
def create_token(body: NewToken, _: Admin, parts: PartsOf) -> MadeToken:
    """Make a token."""
    return MadeToken(token=tokens.create(parts.database, body.name, body.scope, days=body.days))


@router.delete("/tokens/{name}", status_code=204)
def revoke_token(name: str, _: Admin, parts: PartsOf) -> Response:
    """End a token for good."""
    tokens.revoke(parts.database, name.replace("\x00", ""))
    parts.holders.forget()
    return Response(status_code=204)


@router.get("/audit")
def read_audit(_: Admin, parts: PartsOf, limit: Limit = 50, after: After = None) -> Page[EntryModel]:
    """Who changed what, the last first."""
    with parts.database.reading() as session:
        return paged(session, select(Entry), [Entry.number], limit, after, EntryModel.model_validate)


def _token(row: Token) -> TokenModel:
    return TokenModel.model_validate({name: getattr(row, name) for name in TokenModel.model_fields})
