"""Atlases in memory, so that a lookup is answered at once; the only thing that the server computes by itself."""

from __future__ import annotations

import tempfile
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fn3hw.searcher import Atlas
from fn3hw.service import catalog
from fn3hw.service.database import Database
from fn3hw.service.storage import Storage
from fn3hw.space import SearchSpace

KEPT = 64


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

    def point(self, limits: dict[str, float]) -> dict[str, Any]:
        """The document of a lookup.

        Raises:
            InfeasibleBudget: nothing meets it.
            InputError: a budget is of the wrong kind for this device.
        """
        point = self.atlas.lookup(**limits)
        return {**point.to_json(), "counts": point.counts, "binding": point.binding}


class Atlases:
    """Opens atlases; the last ones used stay in memory.

    Args:
        database: has the searches.
        storage: has the files.
    """

    def __init__(self, database: Database, storage: Storage) -> None:
        self._database, self._storage = database, storage
        self._open: OrderedDict[str, OpenAtlas] = OrderedDict()
        self._lock = threading.Lock()

    def known(self, search_id: str) -> OpenAtlas | None:
        """The atlas of a search, if it is in memory."""
        with self._lock:
            found = self._open.get(search_id)
            if found is not None:
                self._open.move_to_end(search_id)
            return found

    def open(self, search_id: str) -> OpenAtlas:
        """The atlas of a search.

        Raises:
            NotFound: there is no such search.
            Unavailable: its file cannot be read.
        """
        if (found := self.known(search_id)) is not None:
            return found
        with self._database.session() as session:
            search = catalog.search(session, search_id)
            gates = catalog.network(session, catalog.run(session, search.run_id).network_id).gates
        space = SearchSpace.from_json(gates)
        with tempfile.TemporaryDirectory(prefix="fn3hw-atlas-") as folder:
            path = Path(folder) / search.atlas_name
            self._storage.copy(search.atlas_sha256, path)
            atlas = Atlas.load(path, space)
        found = OpenAtlas(search.id, search.run_id, search.device, atlas)
        with self._lock:
            self._open[search_id] = found
            while len(self._open) > KEPT:
                self._open.popitem(last=False)
        return found
