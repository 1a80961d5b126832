"""HTTP to one server: the token, tries again, pages, and errors as ours.

A request is sent again after a pause where nothing answered, or where the server said that it cannot just now. One that
would do something twice (``again=False``) is sent again only where it is sure that it was not done.
"""

from __future__ import annotations

import random
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import httpx
from pydantic import SecretStr, ValidationError

from fn3hw.client.address import checked_token, checked_url, is_local
from fn3hw.client.errors import Unreachable, error_of, foreign
from fn3hw.client.models import Told
from fn3hw.errors import Fn3hwError, ServerError

PAUSES_S: Final = (0.25, 0.5, 1.0, 2.0)
LONGEST_PAUSE_S: Final = 30.0
BUSY: Final = (429, 502, 503, 504)
ITEMS_A_PAGE: Final = 200
Value = TypeVar("Value", bound=Told)


class Connection:
    """HTTP to a server.

    Args:
        url: its address.
        token: who asks; None for ``$FN3HW_TOKEN``.
        allow_plain: send the token over unencrypted HTTP to another machine, too.
        timeout_s: the longest silence of the server.
        transport: instead of the network, in tests.

    Raises:
        InputError: the address or the token is none.
        ServerError: the token would be sent in plain text.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        allow_plain: bool = False,
        timeout_s: float = 30.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.url = checked_url(url)
        self._http = httpx.Client(
            auth=_Bearer(checked_token(token, self.url, allow_plain=allow_plain)),
            headers={"Accept-Encoding": "identity"},
            timeout=httpx.Timeout(timeout_s, connect=min(10.0, timeout_s)),
            transport=transport,
            # A proxy would see the token of a plain connection.
            trust_env=self.url.startswith("https://") or not is_local(self.url),
        )

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def read(self, kind: type[Value], method: str, path: str, **request: Any) -> Value:
        """The value that a request is answered with; see `send`."""
        return self.value(kind, self.json(method, path, **request))

    def json(self, method: str, path: str, **request: Any) -> Any:
        """The JSON that a request is answered with; see `send`."""
        response = self.send(method, path, **request)
        try:
            return response.json()
        except ValueError:
            raise foreign(self.url, f"{path} is no JSON") from None

    def pages(self, kind: type[Value], path: str, /, **params: Any) -> Iterator[Value]:
        """The items of all pages."""
        after = None
        while True:
            page = self.json("GET", path, params={**params, "limit": ITEMS_A_PAGE, "after": after})
            if not isinstance(page, dict) or not isinstance(page.get("items"), list):
                raise foreign(self.url, f"{path} has no items")
            for item in page["items"]:
                yield self.value(kind, item)
            if (after := page.get("next")) is None:
                return

    def send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        content: Any = None,
        headers: Mapping[str, str] | None = None,
        again: bool = True,
    ) -> httpx.Response:
        """Send a request until it is answered.

        Args:
            method: of HTTP.
            path: below ``/v1``.
            params: of the query; those that are None are left out.
            body: JSON.
            content: makes the bytes of the body, anew for each try.
            headers: further ones.
            again: whether it does no harm to do it twice.

        Raises:
            Fn3hwError: the server says what is wrong.
            Unreachable: it does not answer.
            ServerError: something else answers.
        """
        for pause in (*PAUSES_S, None):
            try:
                response = self._http.send(self._request(method, path, params, body, content, headers))
            except httpx.HTTPError as error:
                never_sent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
                if pause is None or not (again or never_sent) or "CERTIFICATE" in str(error):
                    raise self._unreachable(error) from None
            else:
                refused = response.status_code == 429
                if response.status_code not in BUSY or pause is None or not (again or refused):
                    return self._checked(response)
                asked = _retry_after(response)
                if asked is not None and asked > LONGEST_PAUSE_S:
                    return self._checked(response)
                pause = asked if asked is not None else pause
            time.sleep(pause * random.uniform(1.0, 1.25))
        raise AssertionError("the last try returns or raises")

    @contextmanager
    def stream(
        self, path: str, *, headers: Mapping[str, str] | None = None, timeout_s: float | None = None
    ) -> Iterator[httpx.Response]:
        """An answer that is read as it comes. It is asked for once.

        Raises:
            Unreachable: the server does not answer, or stops halfway.
            Fn3hwError: it says that something is wrong.
        """
        request = self._request("GET", path, None, None, None, headers)
        if timeout_s is not None:
            request.extensions["timeout"] = {**request.extensions["timeout"], "read": timeout_s}
        try:
            response = self._http.send(request, stream=True)
            try:
                if not response.is_success and response.status_code != 416:
                    response.read()
                    self._checked(response)
                yield response
            finally:
                response.close()
        except httpx.HTTPError as error:
            raise self._unreachable(error) from None

    def _request(
        self,
        method: str,
        path: str,
        params: Mapping[str, Any] | None,
        body: Mapping[str, Any] | None,
        content: Any,
        headers: Mapping[str, str] | None,
    ) -> httpx.Request:
        return self._http.build_request(
            method,
            f"{self.url}/v1{path}",
            params={name: value for name, value in (params or {}).items() if value is not None},
            json=body,
            content=content() if content is not None else None,
            headers=headers,
        )

    def value(self, kind: type[Value], found: Any) -> Value:
        """Part of an answer as a value.

        Raises:
            ServerError: it is no such value.
        """
        try:
            return kind.model_validate(found)
        except ValidationError as error:
            place = ".".join(str(step) for step in error.errors()[0]["loc"])
            raise foreign(self.url, f"what should be {kind.__name__} lacks {place or 'everything'}") from None

    def _checked(self, response: httpx.Response) -> httpx.Response:
        if response.is_success:
            return response
        if response.is_redirect:
            raise ServerError(
                f"{self.url} sends on to {response.headers.get('location', 'nowhere')[:200]}.",
                hint="Give that address: a token is not sent where one did not mean it to go.",
            )
        raise self._said(response)

    def _said(self, response: httpx.Response) -> Fn3hwError:
        try:
            body = response.json()["error"]
            assert isinstance(body, dict)
        except (ValueError, KeyError, TypeError, AssertionError):
            if response.status_code in BUSY:
                return Unreachable(f"{self.url} cannot be used just now: it answers {response.status_code}.")
            return foreign(self.url, f"it answers {response.status_code}")
        return error_of(body)

    def _unreachable(self, error: httpx.HTTPError) -> Unreachable:
        why = str(error) or type(error).__name__
        return Unreachable(
            f"No server answers at {self.url}: {why}.",
            hint="Is it running, and is the address right? Start one: fn3hw serve",
        )


class _Bearer(httpx.Auth):
    """Adds the token to a request at the last moment, so that nothing else holds it."""

    def __init__(self, token: SecretStr | None) -> None:
        self._token = token

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Send the request with the token."""
        if self._token is not None:
            request.headers["Authorization"] = f"Bearer {self._token.get_secret_value()}"
        yield request


def _retry_after(response: httpx.Response) -> float | None:
    try:
        return max(0.0, float(response.headers["retry-after"]))
    except (KeyError, ValueError):
        return None
