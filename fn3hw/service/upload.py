"""What users send: bounded, stored before it is looked at, and looked at without trusting it."""

from __future__ import annotations

import tarfile
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect, Request

from fn3hw.errors import InputError, RunError
from fn3hw.service import catalog
from fn3hw.service.models import Run
from fn3hw.service.storage import Incoming, Storage, Stored

if TYPE_CHECKING:
    from fn3hw.service.api.shared import Parts

MEMBERS = 64


async def receive(request: Request, parts: Parts) -> Stored:
    """Store the body of a request.

    Raises:
        TooLarge: it is larger than allowed.
        InputError: it stopped halfway.
        Unavailable: it cannot be stored.
    """
    in_thread, limit = request.app.state.in_thread, parts.settings.upload_mib * 2**20
    with Incoming(parts.storage, limit=limit) as incoming:
        incoming.check(int(request.headers.get("content-length", 0)))
        try:
            async for chunk in request.stream():
                await in_thread(lambda chunk=chunk: incoming.write(chunk))
        except ClientDisconnect as error:
            raise InputError("The upload stopped halfway; nothing of it is kept.", hint="Send it again.") from error
        stored: Stored = await in_thread(incoming.store)
        return stored


async def receive_run(request: Request, parts: Parts, name: str) -> Run:
    """A run from a tar of its folder.

    Raises:
        RunError: it is no tar, or holds no trained run.
    """
    stored = await receive(request, parts)

    def add() -> Run:
        read = catalog.read_run(parts.storage, unpacked(parts.storage, stored, limit=parts.settings.upload_mib * 2**20))
        with parts.database.session() as session:
            return catalog.add_run(session, read, name=name, job_id=None)

    found: Run = await request.app.state.in_thread(add)
    return found


def unpacked(storage: Storage, stored: Stored, *, limit: int) -> dict[str, Stored]:
    """The files of a run folder in a tar, each stored; whatever else it holds is left out, and no path is followed.

    Raises:
        RunError: it is no tar, or holds too much.
    """
    found: dict[str, Stored] = {}
    left = limit
    try:
        with storage.open(stored.sha256) as source, tarfile.open(fileobj=source, mode="r:*") as archive:
            for number, member in enumerate(archive):
                if number >= MEMBERS:
                    raise RunError(
                        f"The archive holds more than {MEMBERS} files.", hint="fn3hw push packs what it needs."
                    )
                name = member.name.rpartition("/")[2]
                if not member.isreg() or name not in catalog.RUN_FILES or name in found:
                    continue
                content = archive.extractfile(member)
                assert content is not None
                found[name] = storage.put(content, limit=left)
                left -= found[name].size
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        if isinstance(error, RunError):
            raise
        raise RunError(f"The upload is no tar archive, or a damaged one: {error}.", hint="fn3hw push RUN") from error
    return found
