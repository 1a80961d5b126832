"""Where a server is, and whether a token may be sent there."""

from __future__ import annotations

import ipaddress
import os
from typing import Final
from urllib.parse import urlsplit

from pydantic import SecretStr

from fn3hw.errors import InputError, ServerError

TOKEN: Final = "FN3HW_TOKEN"
"""Environment variable with the token: unlike an option, it shows in no list of processes."""
_EXAMPLE: Final = "Such as https://fn3hw.example.org or http://localhost:8000"


def checked_url(url: str) -> str:
    """The address of a server, without a slash at its end.

    Raises:
        InputError: it is no address, or holds a password or a query.
    """
    try:
        parts = urlsplit(url.strip())
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise InputError(f"The address of the server cannot be read: {error}.", hint=_EXAMPLE) from None
    if parts.username is not None or parts.password is not None:
        raise InputError("The address of a server has no user and no password.", hint=f"Give a token: ${TOKEN}")
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
        raise InputError(f"{url[:200]!r} is no address of a server.", hint=_EXAMPLE)
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/').removesuffix('/v1')}"


def is_local(url: str) -> bool:
    """Whether a server is on this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def checked_token(token: str | None, url: str, *, allow_plain: bool) -> SecretStr | None:
    """The token to be sent: the given one, else ``$FN3HW_TOKEN``.

    Raises:
        InputError: it is no token.
        ServerError: it would go over the network in plain text.
    """
    text = (token if token is not None else os.environ.get(TOKEN, "")).strip()
    if not text:
        return None
    if not all("!" <= character <= "~" for character in text):
        raise InputError("The token holds characters that no token has.", hint="Copy it once more, as a whole.")
    if url.startswith("http://") and not is_local(url) and not allow_plain:
        raise ServerError(
            f"The token would be sent to {url} in plain text: whoever sees the network traffic could use it.",
            hint="Use https, or a tunnel (ssh -L 8000:localhost:8000 HOST, then http://localhost:8000). "
            "On a network that you trust: allow_plain=True in Python, FN3HW_ALLOW_PLAIN=1 in the shell.",
        )
    return SecretStr(text)
