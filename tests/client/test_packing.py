"""Run folders as tars."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from fn3hw.client.packing import NEEDED, NETWORK, Packed
from fn3hw.errors import RunError


@pytest.fixture
def run(tmp_path: Path) -> Path:
    for name, content in (("run.toml", b"format = 1\n"), ("supernet.onnx", b"o" * 5000), ("space.json", b"[]")):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "archive.jsonl").write_text("{}\n")
    return tmp_path


def test_a_tar_holds_what_a_server_needs(run: Path) -> None:
    packed, told = Packed.run(run), list[tuple[int, int]]()
    content = b"".join(packed.chunks(lambda done, total: told.append((done, total))))
    assert len(content) == packed.size == told[-1][0] == told[-1][1]
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        found = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    assert found == {name: (run / name).read_bytes() for name in NEEDED}


def test_a_network_is_packed_without_its_run(run: Path) -> None:
    assert set(Packed.network(run).sizes) == set(NETWORK)
    (run / "space.json").unlink()
    with pytest.raises(RunError, match=r"space\.json"):
        Packed.network(run)


@pytest.mark.parametrize("name", NEEDED)
def test_a_run_that_is_not_trained_is_refused(run: Path, name: str) -> None:
    (run / name).unlink()
    with pytest.raises(RunError, match=name) as raised:
        Packed.run(run)
    assert "fn3hw train" in raised.value.hint


@pytest.mark.parametrize("text", ["", "format = ", "\x00"])
def test_damaged_settings_are_refused(run: Path, text: str) -> None:
    (run / "run.toml").write_text(text)
    with pytest.raises(RunError, match=r"run\.toml"):
        Packed.run(run)


def test_a_file_that_changes_meanwhile_is_noticed(run: Path) -> None:
    packed = Packed.run(run)
    (run / "supernet.onnx").write_bytes(b"short")
    with pytest.raises(RunError, match="was changed"):
        list(packed.chunks(lambda done, total: None))
