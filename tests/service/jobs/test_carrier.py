from __future__ import annotations

from pathlib import Path

import pytest

from fn3hw.service.jobs import carrier as module
from fn3hw.service.jobs.carrier import Carrier
from fn3hw.service.storage import Storage

PATTERNS = ("run/checkpoint-*", "run/archive.jsonl")


@pytest.fixture(params=["folder", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    url = str(tmp_path / "files") if request.param == "folder" else f"memory://{tmp_path}"
    return Storage(url, tmp_path / "local")


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_another_worker_begins_with_what_was_kept(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EVERY_S", 0.0)
    here, there = tmp_path / "here", tmp_path / "there"
    (here / "run").mkdir(parents=True)
    first = Carrier(storage, "job", here, PATTERNS)
    (here / "run" / "archive.jsonl").write_text("1\n")
    (here / "run" / "checkpoint-1").write_text("one")
    (here / "run" / "weights").write_text("not carried")
    first.keep()
    (here / "run" / "archive.jsonl").write_text("1\n2\n")
    (here / "run" / "checkpoint-1").unlink()
    (here / "run" / "checkpoint-2").write_text("two")
    first.keep()
    Carrier(storage, "other", tmp_path / "other", PATTERNS).keep()
    Carrier(storage, "job", there, PATTERNS).fetch()
    assert contents(there) == {"run/archive.jsonl": "1\n2\n", "run/checkpoint-2": "two"}
    storage.forget("job")
    Carrier(storage, "job", tmp_path / "later", PATTERNS).fetch()
    assert not (tmp_path / "later").exists()


def test_copies_are_made_now_and_then(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "archive.jsonl").write_text("1\n")
    carrier = Carrier(storage, "job", tmp_path, PATTERNS)
    carrier.keep()
    assert storage.saved("job") == []
    carrier.keep(now=True)
    assert storage.saved("job") == ["run/archive.jsonl"]
