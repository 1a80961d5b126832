"""Who may do what: tokens with a scope and an end, known by the SHA-256 of their secret.

Secrets are random numbers of 256 bits, so that a plain digest is as hard to undo as the secret is to guess.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from fn3hw.errors import InputError, UnknownName
from fn3hw.service.database import Database
from fn3hw.service.errors import Conflict, Forbidden, NotFound, Unauthorized, Unavailable
from fn3hw.service.models import Login, Token, now

SCOPES = ("read", "submit", "admin")
"""Each may do what those before it may."""
LOGIN = timedelta(hours=12)
_PREFIX = "fn3hw"


@dataclass(frozen=True, slots=True)
class Holder:
    """Whom a request comes from.

    Args:
        token_id: of the token.
        scope: of the token.
        expires_at: end of the token.
    """

    token_id: str
    scope: str
    expires_at: datetime | None = None

    def check(self, scope: str) -> None:
        """Raise `Forbidden` unless the scope is enough."""
        if SCOPES.index(self.scope) < SCOPES.index(scope):
            raise Forbidden(f"This needs a token of scope {scope}; yours has {self.scope}.")


def create(database: Database, name: str, scope: str, *, days: float | None = None) -> str:
    """A new token: what is returned is shown once and can never be read again.

    Raises:
        InputError: there is no such scope, the name is empty or too long, or ``days`` is not positive.
        Conflict: a token has that name.
    """
    if scope not in SCOPES:
        raise UnknownName("scope", scope, SCOPES)
    if not name.strip() or len(name) > 64:
        raise InputError("A token needs a name of at most 64 characters.")
    if days is not None and not 0 < days <= 36500:
        raise InputError(f"A token cannot be valid for {days:g} days.")
    token_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)

    def make(session: Session) -> None:
        if session.scalar(select(Token).where(Token.name == name)):
            raise Conflict(f"A token is called {name!r} already.", hint="Choose another name, or revoke it first.")
        session.add(
            Token(
                id=token_id,
                name=name,
                secret_sha256=digest(secret),
                scope=scope,
                created_at=now(),
                expires_at=now() + timedelta(days=days) if days is not None else None,
            )
        )

    database.add(make)
    return f"{_PREFIX}_{token_id}_{secret}"


def holder_of(database: Database, text: str) -> Holder:
    """Whom a token belongs to.

    Raises:
        Unauthorized: it is wrong, expired or revoked; which of these is not said.
    """
    prefix, _, rest = text.partition("_")
    token_id, _, secret = rest.partition("_")
    with database.reading() as session:
        token = session.get(Token, token_id[:80]) if prefix == _PREFIX and secret else None
    if token is None or not hmac.compare_digest(token.secret_sha256, digest(secret)) or not _is_valid(token):
        raise _refused()
    if token.used_at is None or now() - token.used_at > timedelta(minutes=1):
        with contextlib.suppress(Unavailable), database.session() as session:  # a full disk can still be read
            session.execute(update(Token).where(Token.id == token.id).values(used_at=now()))
    return Holder(token.id, token.scope, token.expires_at)


def log_in(database: Database, text: str) -> tuple[str, datetime]:
    """A browser's cookie for a token, and when it ends.

    Raises:
        Unauthorized: as `holder_of`.
    """
    holder = holder_of(database, text)
    cookie = secrets.token_urlsafe(32)
    end = min(now() + LOGIN, holder.expires_at or now() + LOGIN)
    with database.session() as session:
        session.execute(delete(Login).where(Login.expires_at < now()))
        session.add(Login(cookie_sha256=digest(cookie), token_id=holder.token_id, expires_at=end))
    return cookie, end


def holder_of_cookie(database: Database, cookie: str) -> Holder:
    """Whom a browser belongs to.

    Raises:
        Unauthorized: it is not logged in, or its token is no longer valid.
    """
    with database.reading() as session:
        login = session.get(Login, digest(cookie))
        token = session.get(Token, login.token_id) if login is not None and login.expires_at > now() else None
        if token is None or not _is_valid(token):
            raise _refused()
        return Holder(token.id, token.scope, token.expires_at)


def log_out(database: Database, cookie: str) -> None:
    """Forget a browser."""
    with database.session() as session:
        login = session.get(Login, digest(cookie))
        if login is not None:
            session.delete(login)


def revoke(database: Database, name: str) -> None:
    """End a token for good.

    Raises:
        NotFound: no token has that name or id.
    """
    with database.session() as session:
        token = session.scalar(select(Token).where((Token.name == name) | (Token.id == name)))
        if token is None:
            raise NotFound(f"No token is called {name!r}.", hint="fn3hw token list")
        token.revoked_at = token.revoked_at or now()


def listed(database: Database) -> list[Token]:
    """All tokens, the oldest first."""
    with database.reading() as session:
        return list(session.scalars(select(Token).order_by(Token.created_at)))


def any_admin(database: Database) -> bool:
    """Whether some valid token has the scope admin."""
    return any(token.scope == "admin" and _is_valid(token) for token in listed(database))


def digest(secret: str) -> str:
    """What is kept of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _is_valid(token: Token) -> bool:
    return token.revoked_at is None and (token.expires_at is None or token.expires_at > now())


def _refused() -> Unauthorized:
    return Unauthorized(
        "The token is missing, wrong, expired or revoked.",
        hint="Ask an administrator of this server for one: fn3hw token create NAME --scope submit",
    )
