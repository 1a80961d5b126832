"""What verbs share of a run folder: its network, data, moments, cost model and atlas, each loaded or made once."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from fn3hw.cli.connecting import is_network
from fn3hw.cli.console import Console
from fn3hw.cost import CostModel, fit_cost
from fn3hw.deploy import Moments, Supernet
from fn3hw.deploy.runtime import batches, open_session
from fn3hw.errors import RunError
from fn3hw.profiler import Profile
from fn3hw.searcher import Archive, Atlas, exporter_of, provenance_of
from fn3hw.searcher.api import ARCHIVE, evaluator_keys
from fn3hw.training import Data, Run, recipe_data

MOMENTS = "moments.safetensors"
MOMENT_BYTES = 2**27


@dataclass(frozen=True)
class OpenRun:
    """A trained run folder.

    Args:
        folder: where it is.
        console: for progress.
    """

    folder: Path
    console: Console

    @cached_property
    def run(self) -> Run:
        """Its settings.

        Raises:
            RunError: it is none, or a network without a run.
        """
        if is_network(self.folder):
            raise RunError(
                f"{self.folder} is a network without a run: it has no run.toml, which names the data that this needs.",
                hint="Such a network can be profiled. To search it, train it as a run: fn3hw train --recipe NAME",
            )
        return Run.open(self.folder)

    @cached_property
    def supernet(self) -> Supernet:
        """Its ONNX supernet; of a network that was exported without a run, too."""
        if not (self.folder / "supernet.onnx").is_file() and self.run:
            raise RunError(
                f"{self.folder} is not trained to its end: it has no supernet.onnx.",
                hint=f"Go on with its training: fn3hw train --output {self.folder}",
            )
        return Supernet.load(self.folder)

    @property
    def network_name(self) -> str:
        """Its name in the recipe, or that of the folder where there is none."""
        return self.folder.resolve().name if is_network(self.folder) else self.run.recipe.network.name

    @cached_property
    def data(self) -> Data:
        """Its data set, checked against the network."""
        data = recipe_data(self.run.recipe)
        data.check_fits(n_classes=self.supernet.n_classes, input_shape=self.supernet.input_shape)
        return data

    @cached_property
    def moments(self) -> Moments:
        """Its closed-form batch norm; collected from training images the first time, then kept in the folder."""
        path = self.folder / MOMENTS
        if path.is_file():
            try:
                return Moments.load(path, self.supernet)
            except RunError as error:
                self.console.say(f"{error.message} It is collected again.")
        limit = max(256, MOMENT_BYTES // (4 * math.prod(self.supernet.input_shape)))
        images = self.data.arrays("train", limit)[0]
        with self.console.progress("collecting batch-norm moments") as ticker:
            started = time.monotonic()
            moments = Moments.collect(
                self.supernet,
                images,
                progress=lambda n, total: ticker.tick(n, total, (time.monotonic() - started) / n * (total - n)),
            )
        moments.save(path)
        return moments

    def profile(self, path: Path) -> Profile:
        """A profile of this run's network.

        Raises:
            ProfileError: it cannot be read, or is of another network.
        """
        profile = Profile.read(path)
        profile.check_network(self.supernet.architecture)
        return profile

    def atlas(self, profile: Profile, cost: CostModel | None = None) -> Atlas:
        """The atlas for a profile: from its file, or made anew from the archive without one evaluation.

        For the profile of the last search, it is the front as it was verified; for another one, made from all that was
        evaluated, since another device has another front.

        Raises:
            RunError: nothing was searched yet.
        """
        cost = cost or fit_cost(profile)
        keys = evaluator_keys(self.folder)
        made_from = provenance_of(self.supernet, cost, profile, keys.final)
        exporter = exporter_of(self.supernet, self.data, profile)
        path = self.folder / made_from.file_name
        if path.is_file():
            try:
                return Atlas.load(path, self.supernet.space, expected=made_from, exporter=exporter)
            except RunError as error:
                self.console.say(f"{error.message} It is made anew from the archive.")
        if made_from.profile != keys.profile:
            made_from = replace(made_from, evaluator=keys.search)
        archive = Archive(self.folder / ARCHIVE, self.supernet.space, made_from.evaluator)
        atlas = Atlas.build(archive.evaluations, cost, made_from, space=self.supernet.space, exporter=exporter)
        if made_from.profile == keys.profile:
            atlas.save(self.folder)
        return atlas


def onnx_accuracy(model: bytes, data: Data, split: str, *, limit: int | None = None) -> float:
    """Top-1 accuracy in percent of an ONNX file on a split."""
    images, labels = data.arrays(split, limit)
    session = open_session(model, threads=None)
    name = session.get_inputs()[0].name
    found = np.concatenate([session.run(None, {name: part})[0].argmax(axis=1) for part in batches(images, 64)])
    return float(100.0 * (found == labels).mean())
