"""What the server has: rows found by id, and rows made of files.

Reading files is apart from making rows (`read_run`, then `add_run`): a transaction stays short. Rows are known by the
content of their files, so that what is added again is found.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import onnx
from sqlalchemy import select, tuple_
from sqlalchemy.orm import Session

from fn3hw.deploy import Supernet
from fn3hw.errors import Fn3hwError, InputError, ProfileError, RunError
from fn3hw.profiler import Profile as ProfileRecord
from fn3hw.service.errors import NotFound
from fn3hw.service.models import (
    Base,
    Device,
    Evaluation,
    File,
    Job,
    JobFile,
    Network,
    Profile,
    Run,
    RunFile,
    Search,
    now,
)
from fn3hw.service.storage import Storage, Stored
from fn3hw.training import Run as RunFolder

RUN_FILES = ("run.toml", "supernet.onnx", "supernet.safetensors", "space.json", "history.jsonl", "moments.safetensors")
NETWORK_FILES = (ONNX, SPACE) = ("supernet.onnx", "space.json")
NEEDED = ("run.toml", *NETWORK_FILES)
MEDIA_TYPES = {
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".onnx": "application/octet-stream",
    ".safetensors": "application/octet-stream",
    ".toml": "application/toml",
    ".png": "image/png",
    ".csv": "text/csv",
    ".html": "text/html",
    ".txt": "text/plain",
}
_AT_ONCE = 500
Row = TypeVar("Row", bound=Base)


def device(session: Session, name: str) -> Device:
    """The device of a name."""
    return _found(session, Device, name, "device")


def run(session: Session, run_id: str) -> Run:
    """The run of an id."""
    return _found(session, Run, run_id, "run")


def network(session: Session, network_id: str) -> Network:
    """The network of an id."""
    return _found(session, Network, network_id, "network")


def profile(session: Session, profile_id: str) -> Profile:
    """The profile of an id."""
    return _found(session, Profile, profile_id, "profile")


def search(session: Session, search_id: str) -> Search:
    """The search of an id."""
    return _found(session, Search, search_id, "search")


def job(session: Session, job_id: str, *, lock: bool = False) -> Job:
    """The job of an id; with ``lock``, nobody else changes it before the end of the transaction."""
    return _found(session, Job, job_id, "job", lock=lock)


def file(session: Session, sha256: str) -> File:
    """The stored file of a digest."""
    return _found(session, File, sha256, "artifact")


def run_files(session: Session, of: Run, folder: str) -> dict[str, str]:
    """The files of a run by their path below ``folder``."""
    rows = session.scalars(select(RunFile).where(RunFile.run_id == of.id))
    return {f"{folder}/{row.path}": row.sha256 for row in rows}


def network_files(of: Network, folder: str) -> dict[str, str]:
    """The files of a network by their path below ``folder``."""
    return {f"{folder}/{ONNX}": of.onnx_sha256, f"{folder}/{SPACE}": of.space_sha256}


def keep_file(session: Session, stored: Stored, path: str) -> None:
    """Make the row of a stored file, unless it is there."""
    if session.get(File, stored.sha256) is None:
        media_type = MEDIA_TYPES.get(Path(path).suffix, "application/octet-stream")
        session.add(File(sha256=stored.sha256, size=stored.size, media_type=media_type, created_at=now()))
        session.flush()


def add_run_file(session: Session, of: Run, path: str, stored: Stored | None) -> None:
    """Give a run one more file, unless it has it."""
    if stored is not None and session.get(RunFile, (of.id, path)) is None:
        keep_file(session, stored, path)
        session.add(RunFile(run_id=of.id, path=path, sha256=stored.sha256))


def add_job_files(session: Session, of: Job, files: Mapping[str, Stored]) -> None:
    """Give a job the files that it ended in."""
    for name, stored in files.items():
        keep_file(session, stored, name)
        session.merge(JobFile(job_id=of.id, name=name, sha256=stored.sha256))


@dataclass(frozen=True, kw_only=True)
class ReadRun:
    """A run folder that was read and found to be sound.

    Args:
        recipe: its settings.
        supernet: its network.
        files: stored, by path.
    """

    recipe: dict[str, Any]
    supernet: Supernet
    files: Mapping[str, Stored]


def read_run(storage: Storage, files: Mapping[str, Stored]) -> ReadRun:
    """Read stored files as a run folder.

    Raises:
        RunError: they are none, or an ONNX file refers to others.
    """
    known = {name: stored for name, stored in files.items() if name in RUN_FILES}
    with storage.folder() as folder:
        for name, stored in known.items():
            storage.copy(stored.sha256, folder / name)
        supernet, recipe = check_run(folder)
    return ReadRun(recipe=recipe, supernet=supernet, files=known)


def check_run(folder: Path) -> tuple[Supernet, dict[str, Any]]:
    """The network and the settings of a run folder.

    Raises:
        RunError: it is none, or an ONNX file refers to others.
    """
    if missing := [name for name in NEEDED if not (folder / name).is_file()]:
        raise RunError(f"This is no trained run: it lacks {', '.join(missing)}.", hint="Train it to its end first.")
    with _unnamed(folder):
        check_self_contained(folder / ONNX)
        return Supernet.load(folder), RunFolder.open(folder).recipe.settings()


def check_network(folder: Path) -> Supernet:
    """The network in a folder that an exported one was saved to.

    Raises:
        RunError: there is none, or its ONNX file refers to others.
    """
    if missing := [name for name in NETWORK_FILES if not (folder / name).is_file()]:
        hint = "fn3hw.deploy.export(net).save(FOLDER) writes both."
        raise RunError(f"This is no exported network: it lacks {', '.join(missing)}.", hint=hint)
    with _unnamed(folder):
        check_self_contained(folder / ONNX)
        return Supernet.load(folder)


@contextmanager
def _unnamed(folder: Path) -> Iterator[None]:
    """Whatever is wrong with what is read there is an error of who sent it, and does not say where the folder is."""
    try:
        yield
    except InputError as error:
        message, hint = error.message.replace(f"{folder}/", ""), error.hint.replace(str(folder), "RUN")
        raise RunError(message, hint=hint) from None
    except Exception as error:
        raise RunError(f"The network cannot be read: {type(error).__name__}.", hint="Is the file whole?") from error


def check_self_contained(path: Path) -> None:
    """Raise `RunError` unless an ONNX file holds all of its tensors: others could be any file of this machine."""
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf raises what it likes
        raise RunError(f"{path.name} is no ONNX file: {type(error).__name__}.") from error
    if any(onnx.external_data_helper.uses_external_data(tensor) for tensor in model.graph.initializer):
        raise RunError(f"{path.name} keeps tensors in other files.", hint="Save it with all tensors inside.")


def add_network(session: Session, net: Supernet, files: Mapping[str, Stored], *, name: str) -> Network:
    """The row of a network, unless it is there."""
    known = session.scalar(select(Network).where(Network.digest == net.digest))
    if known is None:
        for path in NETWORK_FILES:
            keep_file(session, files[path], path)
        known = Network(
            id=f"network-{net.digest[:16]}",
            name=name,
            digest=net.digest,
            architecture=net.architecture,
            gates=net.space.to_json(),
            n_blocks=net.space.n_blocks,
            input_shape=list(net.input_shape),
            n_classes=net.n_classes,
            onnx_sha256=files[ONNX].sha256,
            space_sha256=files[SPACE].sha256,
            created_at=now(),
        )
        session.add(known)
        session.flush()
    return known


def add_run(session: Session, read: ReadRun, *, name: str, job_id: str | None) -> Run:
    """The rows of a run and its network; those that are there already are left as they are."""
    net = read.supernet
    known = add_network(session, net, read.files, name=str(read.recipe["network"]["name"]))
    text = json.dumps([net.digest, read.recipe], sort_keys=True)
    run_id = f"run-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    row = session.get(Run, run_id)
    if row is None:
        row = Run(id=run_id, name=name, network_id=known.id, recipe=read.recipe, job_id=job_id, created_at=now())
        session.add(row)
        session.flush()
    for path, stored in read.files.items():
        add_run_file(session, row, path, stored)
    return row


@dataclass(frozen=True, kw_only=True)
class ReadProfile:
    """A profile that was read and found to be sound."""

    stored: Stored
    record: ProfileRecord


def read_profile(storage: Storage, stored: Stored) -> ReadProfile:
    """Read a stored file as a profile.

    Raises:
        ProfileError: it is none.
    """
    return ReadProfile(stored=stored, record=profile_of(storage.read(stored.sha256)))


def profile_of(content: bytes) -> ProfileRecord:
    """The profile in a file.

    Raises:
        ProfileError: there is none.
    """
    try:
        return ProfileRecord.from_text(content.decode(errors="replace"))
    except Fn3hwError:
        raise
    except Exception as error:
        raise ProfileError(f"The profile cannot be read: {type(error).__name__}.", hint="fn3hw profile RUN") from error


def add_profile(
    session: Session, read: ReadProfile, *, device: str, summary: dict[str, Any], job_id: str | None
) -> Profile:
    """The row of a profile, unless it is there."""
    profile_id = f"profile-{read.stored.sha256[:16]}"
    row = session.get(Profile, profile_id)
    if row is None:
        keep_file(session, read.stored, "profile.json")
        row = Profile(
            id=profile_id,
            device=device,
            architecture=read.record.network.digest,
            sha256=read.stored.sha256,
            verdict=read.record.verdict,
            quantity=read.record.quantity,
            summary=summary,
            job_id=job_id,
            created_at=now(),
        )
        session.add(row)
        session.flush()
    return row


def read_archive(storage: Storage, stored: Stored) -> list[tuple[str, str, str, str]]:
    """The lines of an archive: evaluator, SHA-256 of the subnet, search that gave it up if one did, and the line."""
    found = []
    for line in storage.read(stored.sha256).decode(errors="replace").splitlines():
        try:
            entry = json.loads(line)
            subnet, key = str(entry["subnet"]), str(entry["key"])
        except (ValueError, TypeError, KeyError):
            continue
        given_up = str(entry.get("search", "")) if "images" in entry else ""
        found.append((key, hashlib.sha256(subnet.encode()).hexdigest(), given_up, line))
    return found


def add_evaluations(session: Session, of: Run, lines: Iterable[tuple[str, str, str, str]]) -> None:
    """Add those lines that a run does not have yet."""
    wanted = {line[:3]: line for line in lines}
    keys = list(wanted)
    columns = tuple_(Evaluation.evaluator, Evaluation.subnet_sha256, Evaluation.search)
    for start in range(0, len(keys), _AT_ONCE):
        part = keys[start : start + _AT_ONCE]
        asked = select(Evaluation.evaluator, Evaluation.subnet_sha256, Evaluation.search)
        known = {tuple(row) for row in session.execute(asked.where(Evaluation.run_id == of.id, columns.in_(part)))}
        session.add_all(
            Evaluation(run_id=of.id, evaluator=key[0], subnet_sha256=key[1], search=key[2], line=wanted[key][3])
            for key in part
            if key not in known
        )
        session.flush()


def archive_of(session: Session, run_id: str) -> str:
    """A run's archive as its file holds it."""
    lines = session.scalars(select(Evaluation.line).where(Evaluation.run_id == run_id).order_by(Evaluation.number))
    return "".join(f"{line}\n" for line in lines)


def _found(session: Session, kind: type[Row], key: str, what: str, *, lock: bool = False) -> Row:
    row = session.get(kind, key, with_for_update=lock or None)
    if row is None:
        raise NotFound(f"There is no {what} {key[:80]!r}.")
    return row
