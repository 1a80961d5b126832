"""Batch-norm statistics of any subnet in closed form: no pass of data per subnet.

Two effects move the statistics of a batch-norm node when blocks are removed.

*What it reads loses channels.* Behind a gate stands a linear operation, so the mean and the variance of its output
under any mask follow from the moments of its input, collected once: ``mean = W_S μ_S`` and
``var = diag(W_S Cov_SS W_Sᵀ)``, where S are the kept channels.

Quantized weights are such a W like any other; those of a grouped convolution are one W per group.

*What comes before has changed.* Blocks removed further up change the moments themselves. How much is learned once from
a few dozen exactly recalibrated subnets: per channel, the shift of the mean and the logarithm of the variance ratio are
fitted (ridge) on the removed shares, and their squares, of the gates further up, on the branches that are present, and
on the settings of the quantizers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from fn3hw.deploy.features import Feature, columns, features_of
from fn3hw.deploy.graph import attribute
from fn3hw.deploy.kept import Kept
from fn3hw.deploy.norms import Norm, kept_entries, kept_inputs, norms_of
from fn3hw.deploy.prefixes import Prefixes, prefixes
from fn3hw.deploy.recalibrate import check_images, observe
from fn3hw.deploy.runtime import FloatArray
from fn3hw.deploy.supernet import Statistics, Supernet
from fn3hw.errors import RunError
from fn3hw.space.files import write_bytes
from fn3hw.space.subnet import Subnet

MAX_ENTRIES = 1_000_000
"""Most numbers that patches of one batch may take: of more, only every so many images are looked at."""
FEWEST, PER_FEATURE = 128, 5
"""Subnets that are recalibrated: at least, and for each number that the fit is on."""
TABLES, TABLE_BYTES = 1024, 2**27
"""Tables of closed forms that are kept, and bytes of them."""
RIDGE = 0.03
FLOOR = 1e-12

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """What `statistics` needs, collected once per trained network.

    Args:
        supernet: the network that they belong to.
        tensors: the collected numbers by name: ``NORM/mean``, ``NORM/var`` (C,); ``NORM/fit`` (2, C, F);
            ``OPERATION/mu`` (groups, P), ``OPERATION/cov`` (groups, P, P).
        center: mean of the features over the collected subnets, shape (F,).
    """

    supernet: Supernet
    tensors: dict[str, NDArray[np.float32]]
    norms: tuple[Norm, ...]
    _tables: Kept[tuple[str, int], Prefixes] = field(
        default_factory=lambda: Kept(TABLES, TABLE_BYTES), init=False, repr=False, compare=False
    )

    @cached_property
    def features(self) -> list[Feature]:
        """What the fit is on, in the order of its columns."""
        return features_of(self.supernet)

    @classmethod
    def collect(
        cls,
        supernet: Supernet,
        images: FloatArray,
        *,
        subnets: int | None = None,
        images_per_subnet: int = 512,
        seed: int = 0,
        threads: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Moments:
        """Collect moments over the full network and random ordered subnets.

        Args:
            supernet: the trained network.
            images: normalised images (N, C, H, W) from the training data; some thousands.
            subnets: how many subnets are exactly recalibrated; by default five for each number that the fit is on, and
                at least 128.
            images_per_subnet: on how many images each; every subnet draws its own, so that the luck of the draw
                averages out.
            seed: of the choice of subnets and images.
            threads: threads of ONNX Runtime; one per core by default.
            progress: called with (done, all) after each subnet.

        Raises:
            InputError: the images do not fit the network's input.
        """
        check_images(supernet, images)
        rng = np.random.default_rng(seed)
        collector = _Collector(supernet)
        if subnets is None:
            full = supernet.space.masks(supernet.space.full())
            subnets = max(FEWEST, PER_FEATURE * len(columns(features_of(supernet), full)))
        others = subnets - 1 if collector.norms else 0
        chosen = [supernet.space.full(), *(supernet.space.random(rng, prefix=True) for _ in range(others))]
        for done, subnet in enumerate(chosen, start=1):
            drawn = rng.choice(len(images), size=min(images_per_subnet, len(images)), replace=False)
            collector.add(subnet, images[drawn], threads)
            if progress:
                progress(done, len(chosen))
        return collector.moments()

    def statistics(self, subnet: Subnet) -> Statistics:
        """Mean and variance of each batch-norm node of a subnet, in the subnet's widths."""
        masks = self.supernet.space.masks(subnet)
        base = self._base(subnet, masks)
        features = columns(self.features, masks) - self.tensors["center"]
        return {norm.name: self._shift(norm, base[norm.name], features, masks) for norm in self.norms}

    @property
    def digest(self) -> str:
        """SHA-256 over all collected numbers and the network that they belong to."""
        total = hashlib.sha256(self.supernet.digest.encode())
        for name in sorted(self.tensors):
            total.update(name.encode())
            total.update(np.ascontiguousarray(self.tensors[name]).tobytes())
        return total.hexdigest()

    def save(self, path: Path | str) -> None:
        """Write them as safetensors."""
        stamp = np.frombuffer(bytes.fromhex(self.supernet.digest), dtype=np.uint8)
        write_bytes(path, save_tensors({**self.tensors, "supernet": stamp.copy()}))

    @classmethod
    def load(cls, path: Path | str, supernet: Supernet) -> Moments:
        """Read what `save` wrote.

        Raises:
            RunError: the file is missing, damaged, or belongs to another network.
        """
        hint = "Remove it; it is collected again when it is needed."
        try:
            tensors = load_tensors(Path(path).read_bytes())
            stamp = tensors.pop("supernet").tobytes().hex()
        except (OSError, SafetensorError, KeyError) as error:
            raise RunError(f"{path} cannot be read: {error}.", hint=hint) from error
        if stamp != supernet.digest:
            raise RunError(f"{path} was collected on another network.", hint=hint)
        norms = norms_of(supernet)
        for name in (norm.operation for norm in norms if norm.operation):
            if f"{name}/mu" not in tensors:
                raise RunError(f"{path} was collected by an earlier fn3hw: it has nothing on {name}.", hint=hint)
            # Files from before grouped convolutions were covered have no axis of groups.
            mu, cov = tensors[f"{name}/mu"], tensors[f"{name}/cov"]
            length = mu.shape[-1]
            tensors[f"{name}/mu"], tensors[f"{name}/cov"] = mu.reshape(-1, length), cov.reshape(-1, length, length)
        return cls(supernet, tensors, norms)

    def _base(self, subnet: Subnet, masks: dict[str, NDArray[np.bool_]]) -> dict[str, tuple[Float64, Float64]]:
        """The closed form where it applies, and the collected averages elsewhere."""
        ordered = {norm.name for norm in self.norms if norm.operation and self._is_ordered(norm, masks)}
        others = [norm.operation for norm in self.norms if norm.operation and norm.name not in ordered]
        weights = self.supernet.weights(subnet, others) if others else {}
        found = {}
        for norm in self.norms:
            rows = kept_entries(self.supernet, norm.own_gate, masks, len(self.tensors[f"{norm.name}/mean"]))
            if norm.name in ordered:
                mean, variance = self._look_up(norm, masks, rows)
            elif norm.operation in weights:
                mean, variance = self._closed_form(norm, weights[norm.operation], masks)
            else:
                mean, variance = (
                    self.tensors[f"{norm.name}/{key}"][rows].astype(np.float64) for key in ("mean", "var")
                )
            if norm.bias is not None and (norm.name in ordered or norm.operation in weights):
                mean = mean + self.supernet.graph.arrays[norm.bias][rows].astype(np.float64)
            found[norm.name] = (mean, np.maximum(variance, FLOOR))
        return found

    def _closed_form(
        self, norm: Norm, weight: NDArray[np.float32], masks: dict[str, NDArray[np.bool_]]
    ) -> tuple[Float64, Float64]:
        mu, cov = self.tensors[f"{norm.operation}/mu"], self.tensors[f"{norm.operation}/cov"]
        groups, entries = kept_inputs(self.supernet, norm, masks, *mu.shape)
        matrix = weight.reshape(len(groups), -1, len(entries))
        mean = matrix @ mu[np.ix_(groups, entries)][..., None]
        variance = np.einsum("goi,goi->go", matrix @ cov[np.ix_(groups, entries, entries)], matrix)
        return mean.reshape(-1).astype(np.float64), variance.reshape(-1).astype(np.float64)

    def _is_ordered(self, norm: Norm, masks: dict[str, NDArray[np.bool_]]) -> bool:
        """Whether first blocks are kept of the gate on an operation's input, and of its quantizer."""
        return all(masks[gate][: masks[gate].sum()].all() for gate in (norm.gate, norm.bits) if gate is not None)

    def _look_up(
        self, norm: Norm, masks: dict[str, NDArray[np.bool_]], rows: NDArray[np.intp]
    ) -> tuple[Float64, Float64]:
        """The closed form of an operation that `_is_ordered`, from its table."""
        is_cut = norm.gate is not None and norm.groups == 1
        bits = int(masks[norm.bits].sum()) if norm.bits is not None else 0
        blocks = self.supernet.space[str(norm.gate)].size if is_cut else 1
        table = self._tables.get((norm.name, bits), lambda: self._table(norm, bits, blocks))
        kept = int(masks[str(norm.gate)].sum()) if is_cut else 1
        return table.mean[rows, kept].astype(np.float64), table.variance[rows, kept].astype(np.float64)

    def _table(self, norm: Norm, bits: int, blocks: int) -> tuple[Prefixes, int]:
        name = str(norm.operation)
        whole = self.supernet.space.from_counts({norm.bits: bits} if norm.bits is not None else {})
        mu, cov = self.tensors[f"{name}/mu"], self.tensors[f"{name}/cov"]
        weight = self.supernet.weights(whole, [name])[name]
        table = prefixes(weight.reshape(len(mu), -1, mu.shape[-1]), mu, cov, blocks)
        return table, table.mean.nbytes + table.variance.nbytes

    def _shift(
        self, norm: Norm, base: tuple[Float64, Float64], features: Float64, masks: dict[str, NDArray[np.bool_]]
    ) -> tuple[FloatArray, FloatArray]:
        mean, variance = base
        fit = self.tensors[f"{norm.name}/fit"]
        rows = kept_entries(self.supernet, norm.own_gate, masks, fit.shape[1])
        shift, log_ratio = (fit[:, rows] @ np.append(features[norm.upstream], 1.0)).astype(np.float64)
        new_mean = mean + shift * np.sqrt(variance)
        return new_mean.astype(np.float32), (variance * np.exp(log_ratio)).astype(np.float32)


class _Collector:
    """Accumulates what exact recalibration of a few subnets shows."""

    def __init__(self, supernet: Supernet) -> None:
        self.supernet, self.norms = supernet, norms_of(supernet)
        self.nodes = {node.name: node for node in supernet.graph.nodes}
        self.seen: list[tuple[Subnet, Statistics]] = []
        self.sums: dict[str, tuple[Float64, Float64, Float64, Float64]] = {}

    def add(self, subnet: Subnet, images: FloatArray, threads: int | None) -> None:
        model = self.supernet.slice(subnet, packed=False)
        present = {node.name: node for node in model.graph.node}
        watched = [norm for norm in self.norms if norm.operation in present]
        sources = list(dict.fromkeys(present[str(norm.operation)].input[0] for norm in watched))
        statistics, values = observe(model, images, watch=sources, threads=threads)
        self.seen.append((subnet, statistics))
        masks = self.supernet.space.masks(subnet)
        for norm in watched:
            column = sources.index(present[str(norm.operation)].input[0])
            for part in values:
                self._accumulate(norm, part[column], masks)

    def _accumulate(self, norm: Norm, x: FloatArray, masks: dict[str, NDArray[np.bool_]]) -> None:
        name = str(norm.operation)
        node = self.nodes[name]
        shape = self.supernet.graph.arrays[node.input[1]].shape
        full = norm.groups, int(np.prod(shape[1:]))
        groups, entries = kept_inputs(self.supernet, norm, masks, *full)
        patches = _patches(x, node, shape, len(groups))
        if name not in self.sums:
            square = (*full, full[1])
            self.sums[name] = (np.zeros(full), np.zeros(full), np.zeros(square), np.zeros(square))
        first, n_first, second, n_second = self.sums[name]
        row, grid = np.ix_(groups, entries), np.ix_(groups, entries, entries)
        mean = patches.mean(axis=1, keepdims=True)
        centred = patches - mean
        # Within-subnet covariance: what differs between subnets is a shift of the mean, which the fit accounts for.
        first[row] += mean[:, 0]
        n_first[row] += 1
        second[grid] += centred.swapaxes(1, 2) @ centred / patches.shape[1]
        n_second[grid] += 1

    def moments(self) -> Moments:
        tensors: dict[str, NDArray[np.float32]] = {}
        for name, (first, n_first, second, n_second) in self.sums.items():
            tensors[f"{name}/mu"] = (first / np.maximum(n_first, 1)).astype(np.float32)
            tensors[f"{name}/cov"] = (second / np.maximum(n_second, 1)).astype(np.float32)
        features = features_of(self.supernet)
        table = np.array([columns(features, self.supernet.space.masks(subnet)) for subnet, _ in self.seen])
        tensors["center"] = table.mean(axis=0).astype(np.float32)
        for norm in self.norms:
            self._average(norm, tensors)
        bare = Moments(self.supernet, tensors, self.norms)
        bases = [bare._base(subnet, self.supernet.space.masks(subnet)) for subnet, _ in self.seen]
        for norm in self.norms:
            tensors[f"{norm.name}/fit"] = self._fit(norm, bases, table - tensors["center"])
        return Moments(self.supernet, tensors, self.norms)

    def _average(self, norm: Norm, tensors: dict[str, NDArray[np.float32]]) -> None:
        node = self.nodes[norm.name]
        means, log_vars, count = (np.zeros(self.supernet.graph.arrays[node.input[1]].shape) for _ in range(3))
        for subnet, statistics in self.seen:
            if norm.name in statistics:
                rows = kept_entries(self.supernet, norm.own_gate, self.supernet.space.masks(subnet), len(count))
                means[rows] += statistics[norm.name][0]
                log_vars[rows] += np.log(statistics[norm.name][1] + FLOOR)
                count[rows] += 1
        tensors[f"{norm.name}/mean"] = (means / count).astype(np.float32)
        tensors[f"{norm.name}/var"] = np.exp(log_vars / count).astype(np.float32)

    def _fit(
        self, norm: Norm, bases: list[dict[str, tuple[Float64, Float64]]], features: Float64
    ) -> NDArray[np.float32]:
        """Ridge per channel over the subnets that keep it; shape (2, C, F + 1)."""
        width = len(self.supernet.graph.arrays[self.nodes[norm.name].input[1]])
        inputs = np.column_stack([features[:, norm.upstream], np.ones(len(features))])
        target, weight = np.zeros((2, len(self.seen), width)), np.zeros((len(self.seen), width))
        for row, (subnet, statistics) in enumerate(self.seen):
            if norm.name in statistics:
                kept = kept_entries(self.supernet, norm.own_gate, self.supernet.space.masks(subnet), width)
                mean, variance = bases[row][norm.name]
                exact_mean, exact_variance = statistics[norm.name]
                target[0, row, kept] = (exact_mean - mean) / np.sqrt(variance)
                target[1, row, kept] = np.log((exact_variance + FLOOR) / variance)
                weight[row, kept] = 1.0
        normal = np.einsum("rf,rc,rg->cfg", inputs, weight, inputs) + RIDGE * np.eye(inputs.shape[1])
        right = np.einsum("rf,rc,krc->kcf", inputs, weight, target)
        return np.linalg.solve(normal[None], right[..., None])[..., 0].astype(np.float32)


def _patches(x: FloatArray, node: onnx.NodeProto, weight_shape: tuple[int, ...], groups: int) -> FloatArray:
    """The vectors that a linear operation multiplies its weight with, at a sample of the positions.

    Shape (groups, positions, entries), for an input x (N, C) or (N, C, H, W).
    """
    if x.ndim == 2:
        return x[None]
    strides = attribute(node, "strides", [1, 1])
    pads = attribute(node, "pads", [0, 0, 0, 0])
    padded = np.pad(x, ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])))
    windows = sliding_window_view(padded, weight_shape[2:], axis=(2, 3))[:, :, :: strides[0], :: strides[1]]
    kernel = int(np.prod(weight_shape[2:]))
    step = max(1, windows.size // MAX_ENTRIES)
    rows = windows[::step].reshape(-1, groups, windows.shape[1] // groups, *windows.shape[2:])
    return np.moveaxis(rows, (1, 2), (0, 4)).reshape(groups, -1, rows.shape[2] * kernel)
