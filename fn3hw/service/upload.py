"""What users send: bounded, looked at without trusting it, and stored when it was found to be sound."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from starlette.requests import ClientDisconnect, Request

from fn3hw.errors import Fn3hwError, InputError, RunError
from fn3hw.service import catalog
from fn3hw.service.errors import TooLarge, Unavailable
from fn3hw.service.models import Network, Profile, Run
from fn3hw.service.storage import Incoming, Stored

if TYPE_CHECKING:
    from fn3hw.service.api.shared import Parts

MEMBERS = 64
TEXT_BYTES = 2**26
"""Of files that are read as a whole: a profile, or those of a run that hold no tensors."""
TENSORS = (".onnx", ".safetensors")
Made = TypeVar("Made")


async def receive_run(request: Request, parts: Parts, name: str) -> Run:
    """A run from a tar of its folder.

    Raises:
        RunError: it is no tar, or holds no trained run.
    """

    def add(folder: Path) -> Run:
        supernet, recipe = catalog.check_run(folder)
        read = catalog.ReadRun(recipe=recipe, supernet=supernet, files=_stored(parts, folder))
        return parts.database.add(lambda session: catalog.add_run(session, read, name=name, job_id=None))

    return await _receive_folder(request, parts, catalog.RUN_FILES, add)


async def receive_network(request: Request, parts: Parts, name: str) -> Network:
    """An exported network from a tar of its folder.

    Raises:
        RunError: it is no tar, or holds no such network.
    """

    def add(folder: Path) -> Network:
        supernet = catalog.check_network(folder)
        files = _stored(parts, folder)
        return parts.database.add(lambda session: catalog.add_network(session, supernet, files, name=name))

    return await _receive_folder(request, parts, catalog.NETWORK_FILES, add)


async def receive_profile(request: Request, parts: Parts, device: str) -> Profile:
    """A profile from its file.

    Raises:
        ProfileError: it is none.
    """
    async with _received(request, parts, limit=TEXT_BYTES) as incoming:

        def add() -> Profile:
            record = catalog.profile_of(Path(incoming.path).read_bytes())
            read = catalog.ReadProfile(stored=incoming.store(), record=record)
            made = partial(catalog.add_profile, read=read, device=device, summary={}, job_id=None)
            return parts.database.add(made)

        found: Profile = await request.app.state.in_thread(add)
        return found


def unpack(packed: Path, folder: Path, names: tuple[str, ...], *, limit: int) -> None:
    """Unpack those files of a tar that have a name of these; whatever else it holds is left, and no path is followed.

    A compressed tar is refused: what it leaves out of a few bytes would take long to skip.

    Raises:
        RunError: it is no tar, or has too many members.
        TooLarge: the files are larger than ``limit`` bytes together.
        Unavailable: they cannot be written.
    """
    left = limit
    try:
        with tarfile.open(packed, mode="r:") as archive:
            for number, member in enumerate(archive):
                if number >= MEMBERS:
                    raise RunError(
                        f"The archive holds more than {MEMBERS} files.", hint="fn3hw push packs what it needs."
                    )
                name = member.name.rpartition("/")[2]
                if not member.isreg() or name not in names or (folder / name).exists():
                    continue
                left -= member.size
                if left < 0 or (Path(name).suffix not in TENSORS and member.size > TEXT_BYTES):
                    raise TooLarge("The files in the archive are larger than this server takes.")
                content = archive.extractfile(member)
                assert content is not None
                with (folder / name).open("wb") as file:
                    shutil.copyfileobj(content, file)
    except Fn3hwError:
        raise
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise RunError(
            f"The upload is no tar archive, a compressed or a damaged one: {error}.", hint="fn3hw push RUN"
        ) from error
    except OSError as error:
        raise Unavailable(f"The upload cannot be unpacked: {error.strerror}.") from error


async def _receive_folder(request: Request, parts: Parts, names: tuple[str, ...], add: Callable[[Path], Made]) -> Made:
    limit = parts.settings.upload_mib * 2**20
    async with _received(request, parts, limit=limit) as incoming:

        def unpacked() -> Made:
            with parts.storage.folder() as folder:
                unpack(Path(incoming.path), folder, names, limit=limit)
                return add(folder)

        found: Made = await request.app.state.in_thread(unpacked)
        return found


@asynccontextmanager
async def _received(request: Request, parts: Parts, *, limit: int) -> AsyncIterator[Incoming]:
    """The body of a request, whole, in a file that is there as long as it is looked at.

    Raises:
        TooLarge: it is larger than allowed.
        InputError: it stopped halfway.
        Unavailable: it cannot be written.
    """
    in_thread = request.app.state.in_thread
    with Incoming(parts.storage, limit=min(limit, parts.settings.upload_mib * 2**20)) as incoming:
        incoming.check(int(request.headers.get("content-length", 0)))
        try:
            async for chunk in request.stream():
                await in_thread(lambda chunk=chunk: incoming.write(chunk))
        except ClientDisconnect as error:
            raise InputError("The upload stopped halfway; nothing of it is kept.", hint="Send it again.") from error
        await in_thread(incoming.flush)
        yield incoming


def _stored(parts: Parts, folder: Path) -> dict[str, Stored]:
    return {path.name: parts.storage.put_path(path) for path in sorted(folder.iterdir())}
