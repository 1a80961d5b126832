"""`search`: a trained network, a cost model and data in; the atlas of a run folder out."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from fn3hw.deploy import Moments, Statistics, Supernet, as_supernet
from fn3hw.errors import InputError
from fn3hw.profiler import Meter, Profile
from fn3hw.searcher.api import CostBy, OnProgress, run_search
from fn3hw.searcher.atlas import Atlas, Provenance
from fn3hw.searcher.evaluator import Evaluator
from fn3hw.searcher.export import Exporter, FinishedFile
from fn3hw.searcher.heuristic import Heuristic
from fn3hw.searcher.ports import CostPredictor, Executor, SearchData
from fn3hw.searcher.verify import masked_difference
from fn3hw.space.files import sha256
from fn3hw.space.subnet import Subnet

_MOMENT_IMAGES = 512
_RECALIBRATION_IMAGES = 2048
_CALIBRATION_IMAGES = 256
_PARITY_IMAGES = 64


def search(
    net: Any,
    cost: CostPredictor,
    data: SearchData,
    *,
    folder: Path | str | None = None,
    evaluations: int = 300,
    seed: int = 0,
    cost_by: CostBy = "latency",
    levels: Iterable[str] | None = None,
    images: int = 1000,
    final_images: int | None = None,
    profile: Profile | None = None,
    device: str | None = None,
    moments: Moments | None = None,
    settings: Heuristic | None = None,
    executor: Executor | None = None,
    threads: int | None = None,
    progress: OnProgress | None = None,
) -> Atlas:
    """Find the most accurate subnets for every cost; one search answers all budgets.

    An interrupted search, called again with the same arguments, goes on where it stopped.

    Args:
        net: a supernet (`fn3hw.deploy.Supernet`) or a nested network, which is exported first.
        cost: what subnets cost (`fn3hw.fit_cost`).
        data: its split ``"search"`` chooses the subnets, images of ``"train"`` set batch norm.
        folder: the run; ``archive.jsonl`` and ``atlas-<device>.json`` are there. By default ``runs/`` and the digest of
            the network.
        evaluations: the most subnets whose accuracy is evaluated.
        seed: equal seeds, equal searches.
        cost_by: what a rung lowers: predicted ``"latency"``, ``"peak"`` memory, file ``"size"``, or ``"blocks"``, the
            paper's plain form.
        levels: search these levels alone; gates of the others stay whole. By default all.
        images: of the search split, per evaluation.
        final_images: evaluate the front once more on so many images, where the split has more than ``images``. That of
            a network with quantized weights is always evaluated once more, with layers that compute on integers.
        profile: what the cost model was fitted on; by default ``cost.profile``. Exports are measured against it.
        device: label of the device; by default taken from the profile.
        moments: of the network; by default collected from the training data.
        settings: instead of ``evaluations`` and ``seed``.
        executor: runs the evaluations; by default in this process, one per core side by side.
        threads: threads of ONNX Runtime per evaluation; one per core by default.
        progress: called after each evaluation.

    Raises:
        ProfileError: the profile was measured with another network.
        RunError: the archive belongs to another network, or another program writes to it.
        UnknownName: the network has no gate of a level.
        InputError: the data do not fit the network, or an accuracy or cost is not a number.
    """
    if images < 1 or (final_images is not None and final_images < 1):
        raise InputError(f"A search needs at least one image, not {min(images, final_images or images)}.")
    supernet = as_supernet(net)
    if profile is None and isinstance(found := getattr(cost, "profile", None), Profile):
        profile = found
    if profile is not None:
        profile.check_network(supernet.architecture)
        supernet = supernet.with_blockwise(profile.blockwise)
    if moments is None:
        moments = Moments.collect(supernet, data.arrays("train", _MOMENT_IMAGES)[0], threads=threads)
    evaluator = evaluator_of(supernet, moments, data, "search", images, integers=False, threads=threads)
    final = None
    if supernet.quantizers or (final_images or 0) > images:
        final = evaluator_of(supernet, moments, data, "search", max(images, final_images or 0), threads=threads)
    if settings is None:
        make = Heuristic.plain if cost_by == "blocks" else Heuristic
        settings = make(evaluations=evaluations, seed=seed)
    return run_search(
        supernet.space,
        cost,
        evaluator,
        provenance_of(supernet, cost, profile, (final or evaluator).key, device=device),
        folder=folder if folder is not None else Path("runs") / supernet.digest[:12],
        settings=settings,
        cost_by=cost_by,
        levels=levels,
        executor=executor,
        final=final,
        exporter=exporter_of(supernet, data, profile),
        progress=progress,
    )


def evaluator_of(
    supernet: Supernet,
    moments: Moments,
    data: SearchData,
    split: str,
    images: int | None,
    *,
    integers: bool = True,
    threads: int | None = None,
    cuts: int = 0,
) -> Evaluator:
    """Evaluates on the first images of a split, by default all.

    Quantized layers compute on integers, as in the exported file, or else on the numbers that these stand for: that
    spares the pass that sets the ranges of activations, for every subnet.
    """
    calibration = data.arrays("train", _CALIBRATION_IMAGES)[0] if supernet.quantizers and integers else None
    chosen = data.arrays(split, images)
    return Evaluator(supernet, moments, *chosen, threads=threads, calibration=calibration, cuts=cuts)


def provenance_of(
    supernet: Supernet, cost: CostPredictor, profile: Profile | None, evaluator: str, *, device: str | None = None
) -> Provenance:
    """What an atlas of these is made from. Without a profile, the cost model is known by what it predicts."""
    if profile is not None:
        checksum = sha256(profile.to_text().encode())
        label = device or device_label(profile)
    else:
        ends = cost.predict([supernet.space.full(), supernet.space.smallest()]).to_numpy(dtype=np.float64)
        checksum, label = sha256(json.dumps(np.nan_to_num(ends).tolist()).encode()), device or "device"
    quantity = profile.quantity if profile is not None else "latency"
    return Provenance(device=label, network=supernet.digest, profile=checksum, evaluator=evaluator, quantity=quantity)


def device_label(profile: Profile) -> str:
    """Short label of a profile's device: the processor's name, where it is known, and the id of the device key."""
    name = next((str(profile.device[k]) for k in ("cpu_model", "cpu", "name") if profile.device.get(k)), "device")
    return f"{name[:40].strip()} {profile.device_id[:8]}"


def exporter_of(supernet: Supernet, data: SearchData, profile: Profile | None) -> Exporter:
    """Writes files with batch norm recalibrated on training images, and measures them against the profile."""
    images = data.arrays("train", _RECALIBRATION_IMAGES)[0]
    if profile is not None:
        supernet = supernet.with_blockwise(profile.blockwise)

    def parity(network: Supernet, subnet: Subnet, statistics: Statistics, model: Any) -> float:
        return masked_difference(network, subnet, statistics, model, images[:_PARITY_IMAGES])

    def meter(device: str) -> Meter:
        if profile is None:
            raise InputError("A file can be measured against a profile only.", hint="Pass profile= to search.")
        return Meter(supernet, profile, device)

    return Exporter(FinishedFile(supernet, images, parity=parity), meter, tail=profile.tail if profile else 1.0)
