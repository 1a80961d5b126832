from __future__ import annotations

from datetime import timedelta
from typing import NoReturn

import pytest
from sqlalchemy import select, update

from fn3hw.errors import InputError
from fn3hw.service import tokens
from fn3hw.service.database import Database
from fn3hw.service.errors import Conflict, Forbidden, NotFound, Unauthorized, Unavailable
from fn3hw.service.models import Login, Token, now
from fn3hw.service.tokens import SCOPES, Holder


def test_a_token_says_who_holds_it_and_is_kept_as_its_digest(database: Database) -> None:
    text = tokens.create(database, "mine", "submit", days=1)
    holder = tokens.holder_of(database, text)
    assert holder.scope == "submit" and holder.expires_at is not None
    secret = text.split("_", 2)[2]
    with database.session() as session:
        row = session.scalars(select(Token)).one()
        kept = [str(getattr(row, column.key)) for column in Token.__table__.columns]
    assert not any(secret in value for value in kept) and row.used_at is not None


@pytest.mark.parametrize("spoil", ["", "x", "fn3hw__", "fn3hw_0_0", "{text}x", "{id}_", "other{text}"])
def test_anything_else_is_refused(database: Database, spoil: str) -> None:
    text = tokens.create(database, "mine", "read")
    with pytest.raises(Unauthorized) as caught:
        tokens.holder_of(database, spoil.format(text=text, id=text.rpartition("_")[0]))
    assert text not in str(caught.value)


def test_expired_and_revoked_tokens_and_their_browsers_are_refused(database: Database) -> None:
    for name in ("late", "gone"):
        text = tokens.create(database, name, "admin", days=1)
        cookie, _ = tokens.log_in(database, text)
        assert tokens.holder_of_cookie(database, cookie).scope == "admin"
        if name == "gone":
            tokens.revoke(database, name)
        else:
            with database.session() as session:
                row = session.scalars(select(Token).where(Token.name == name)).one()
                row.expires_at = now() - timedelta(seconds=1)
        with pytest.raises(Unauthorized):
            tokens.holder_of(database, text)
        with pytest.raises(Unauthorized):
            tokens.holder_of_cookie(database, cookie)
    assert not tokens.any_admin(database)


def test_a_disk_that_is_full_still_lets_one_in(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    text = tokens.create(database, "mine", "read")

    def full() -> NoReturn:
        raise Unavailable("The database cannot be used now.")

    monkeypatch.setattr(database, "session", full)
    assert tokens.holder_of(database, text).scope == "read"


def test_browsers_that_are_out_of_date_are_removed(database: Database) -> None:
    text = tokens.create(database, "mine", "read")
    first, _ = tokens.log_in(database, text)
    with database.session() as session:
        session.execute(update(Login).values(expires_at=now() - timedelta(seconds=1)))
    second, _ = tokens.log_in(database, text)
    with database.session() as session:
        kept = set(session.scalars(select(Login.cookie_sha256)))
    assert kept == {tokens.digest(second)} and first != second


def test_a_browser_is_forgotten(database: Database) -> None:
    cookie, _ = tokens.log_in(database, tokens.create(database, "mine", "read"))
    tokens.log_out(database, cookie)
    with pytest.raises(Unauthorized):
        tokens.holder_of_cookie(database, cookie)
    with database.session() as session:
        assert session.scalars(select(Login)).all() == []


def test_tokens_that_cannot_be_made(database: Database) -> None:
    tokens.create(database, "mine", "read")
    for arguments, error in (
        (("mine", "read"), Conflict),
        (("other", "root"), InputError),
        ((" ", "read"), InputError),
        (("x" * 65, "read"), InputError),
    ):
        with pytest.raises(error):
            tokens.create(database, *arguments)
    with pytest.raises(InputError):
        tokens.create(database, "other", "read", days=0)
    with pytest.raises(NotFound):
        tokens.revoke(database, "nobody")


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("needed", SCOPES)
def test_each_scope_may_do_what_those_before_it_may(scope: str, needed: str) -> None:
    if SCOPES.index(scope) >= SCOPES.index(needed):
        Holder("id", scope).check(needed)
    else:
        with pytest.raises(Forbidden, match=needed):
            Holder("id", scope).check(needed)
