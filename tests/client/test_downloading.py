"""Downloads: resumed, checked, and whole or not there."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import httpx
import pytest

from fn3hw.client import Client
from fn3hw.errors import InputError, ServerError
from tests.client.conftest import Script

CONTENT = bytes(range(256)) * 64
DIGEST = sha256(CONTENT).hexdigest()


def part(folder: Path) -> Path:
    return folder / f".model.onnx.{DIGEST[:16]}.part"


def ranged(request: httpx.Request) -> httpx.Response:
    """As a server that knows ranges."""
    asked = request.headers.get("range")
    if asked is None:
        return httpx.Response(200, content=CONTENT)
    start = int(asked.removeprefix("bytes=").removesuffix("-"))
    if start >= len(CONTENT):
        return httpx.Response(416)
    told = {"content-range": f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"}
    return httpx.Response(206, content=CONTENT[start:], headers=told)


def broken(request: httpx.Request) -> httpx.Response:
    """The same, cut off after 1000 bytes."""
    whole = ranged(request)

    def some() -> Iterator[bytes]:
        yield whole.read()[:1000]
        raise httpx.ReadError("Connection reset")

    return httpx.Response(whole.status_code, headers=whole.headers, content=some())


def test_a_download_goes_on_where_it_was_cut_off(client: Client, script: Script, tmp_path: Path) -> None:
    script.answers = [broken, broken, ranged]
    assert client.download(DIGEST, tmp_path / "model.onnx").read_bytes() == CONTENT
    assert [request.headers.get("range") for request in script.asked] == [None, "bytes=1000-", "bytes=2000-"]
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("size", [500, len(CONTENT)])
def test_what_an_earlier_call_left_is_used(client: Client, script: Script, tmp_path: Path, size: int) -> None:
    part(tmp_path).write_bytes(CONTENT[:size])
    script.answers = [ranged]
    assert client.download(DIGEST, tmp_path / "model.onnx").read_bytes() == CONTENT


def test_a_server_without_ranges_sends_it_anew(client: Client, script: Script, tmp_path: Path) -> None:
    part(tmp_path).write_bytes(CONTENT[:500])
    script.answers = [httpx.Response(200, content=CONTENT)]
    assert client.download(DIGEST, tmp_path / "model.onnx").read_bytes() == CONTENT


def test_a_wrong_beginning_is_thrown_away(client: Client, script: Script, tmp_path: Path) -> None:
    part(tmp_path).write_bytes(b"x" * 500)
    script.answers = [ranged, ranged]
    assert client.download(DIGEST, tmp_path / "model.onnx").read_bytes() == CONTENT


def test_another_content_is_refused(client: Client, script: Script, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"before")
    script.answers = [httpx.Response(200, content=CONTENT[:-1] + b"?")] * 2
    with pytest.raises(ServerError, match="SHA-256"):
        client.download(DIGEST, tmp_path / "model.onnx")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("model.onnx", b"before")]


def test_what_is_there_is_not_fetched(client: Client, script: Script, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(CONTENT)
    client.download(DIGEST, tmp_path / "model.onnx")
    assert script.asked == []


def test_a_place_that_cannot_be_written(client: Client, script: Script, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    script.answers = [ranged]
    with pytest.raises(InputError, match="cannot be written"):
        client.download(DIGEST, tmp_path / "file" / "model.onnx")
