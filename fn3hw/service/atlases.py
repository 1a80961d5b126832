"""Atlases in memory, so that a lookup is answered at once; the only thing that the server computes by itself."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from fn3hw.deploy.kept import Kept
from fn3hw.searcher import Atlas
from fn3hw.service import catalog
from fn3hw.service.database import Database
from fn3hw.service.storage import Storage
from fn3hw.space import SearchSpace, Subnet

KEPT, KEPT_BYTES = 64, 2**28


@dataclass(frozen=True)
class OpenAtlas:
    """An atlas with the names of what it is of.

    Args:
        search_id: the search that it is from.
        run_id: its run.
        device: what it is for.
        atlas: its points.
    """

    search_id: str
    run_id: str
    device: str
    atlas: Atlas
    _answers: dict[tuple[Subnet, str | None], bytes] = field(default_factory=dict, repr=False)

    def answer(self, limits: dict[str, float]) -> bytes:
        """The document of a lookup, as JSON; there are as many as points, and each is made once.

        Raises:
            InfeasibleBudget: nothing meets it.
            InputError: a budget is of the wrong kind for this device.
        """
        point = self.atlas.lookup(**limits)
        key = point.subnet, point.binding
        if (found := self._answers.get(key)) is None:
            document = {**point.to_json(), "counts": point.counts, "binding": point.binding}
            found = self._answers[key] = json.dumps(document).encode()
        return found


class Atlases:
    """Opens atlases; the last ones used stay in memory.

    Args:
        database: has the searches.
        storage: has the files.
    """

    def __init__(self, database: Database, storage: Storage) -> None:
        self._database, self._storage = database, storage
        self._open = Kept[str, OpenAtlas](KEPT, KEPT_BYTES)

    def known(self, search_id: str) -> OpenAtlas | None:
        """The atlas of a search, if it is in memory."""
        return self._open.find(search_id)

    def open(self, search_id: str) -> OpenAtlas:
        """The atlas of a search.

        Raises:
            NotFound: there is no such search.
            Unavailable: its file cannot be read.
        """
        return self._open.get(search_id, lambda: self._read(search_id))

    def _read(self, search_id: str) -> tuple[OpenAtlas, int]:
        with self._database.reading() as session:
            search = catalog.search(session, search_id)
            gates = catalog.network(session, catalog.run(session, search.run_id).network_id).gates
        space = SearchSpace.from_json(gates)
        with tempfile.TemporaryDirectory(prefix="fn3hw-atlas-") as folder:
            path = Path(folder) / search.atlas_name
            self._storage.copy(search.atlas_sha256, path)
            atlas, size = Atlas.load(path, space), path.stat().st_size
        return OpenAtlas(search.id, search.run_id, search.device, atlas), size
