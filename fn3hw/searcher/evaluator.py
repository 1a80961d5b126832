"""Accuracy of a subnet: its sliced ONNX file, with corrected batch norm, run in ONNX Runtime on held-out images.

The sessions of candidates that race stay open from one part of the images to the next. With ``cuts``, a file runs as a
chain (`fn3hw.deploy.segments`): what a candidate and the subnet that it was made from compute alike at their beginning,
and the sessions that compute it, are then kept and not made again.
"""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from fn3hw.deploy import Supernet, calibrated
from fn3hw.deploy.kept import Kept
from fn3hw.deploy.runtime import available_cores
from fn3hw.deploy.segments import Segment, even_cuts, segments
from fn3hw.errors import InputError
from fn3hw.space.subnet import SearchSpace, Subnet

_VERSION = 5
_FILES, _FILE_BYTES = 64, 2**27
"""Chains that are kept as files, at most, and bytes of them: those of the candidates that race."""
_SESSIONS, _SESSION_BYTES = 64, 2**28
"""Sessions that stay open, at most, and bytes of their files."""
_VALUES, _VALUE_BYTES = 2**20, 2**28
"""Values between segments that are kept."""
_PAD = 4
"""ONNX Runtime on x86 convolves multiples of four channels in its blocked layout, others far more slowly."""


class StatisticsSource(Protocol):
    """Batch-norm statistics of a subnet in closed form; `fn3hw.deploy.Moments` is one."""

    @property
    def digest(self) -> str:
        """SHA-256 of all that the statistics depend on."""
        ...

    def statistics(self, subnet: Subnet) -> Any:
        """The statistics, as `Supernet.slice` takes them."""
        ...


class Evaluator:
    """Evaluates subnets on fixed images. Safe to call from several threads; within bounds, keeps what was computed.

    Args:
        supernet: the trained network.
        moments: gives the batch-norm statistics; ``None`` only with ``bn="stored"``.
        images: float32, shape (N, C, H, W), normalised.
        labels: int64, shape (N,).
        threads: batches that run side by side in a call; one per core by default.
        batch_size: images per run. Small ones keep the activations in the cache.
        bn: ``"closed-form"`` takes the statistics from ``moments``, ``"stored"`` keeps those of training.
        calibration: training images that set the ranges of activations, so that quantized layers compute on integers;
            without them, on the fp32 numbers that the integers stand for, which needs no pass over such images.
        cuts: values that files are cut at, at most; files with the ranges of activations stay whole. Each cut takes
            data out of their fastest layout: on the networks of ``benchmarks/search_speed.py`` that costs more than
            common beginnings spare.

    Raises:
        InputError: the images do not fit the network or the labels, or there are none.
    """

    def __init__(
        self,
        supernet: Supernet,
        moments: StatisticsSource | None,
        images: NDArray[np.float32],
        labels: NDArray[np.int64],
        *,
        threads: int | None = None,
        batch_size: int = 16,
        bn: Literal["closed-form", "stored"] = "closed-form",
        calibration: NDArray[np.float32] | None = None,
        cuts: int = 0,
    ) -> None:
        _check(supernet, images, labels)
        if bn not in ("closed-form", "stored") or (bn == "closed-form" and moments is None):
            raise InputError(f"bn={bn!r} needs to be 'closed-form', with moments, or 'stored'.")
        threads = available_cores() if threads is None else threads
        if threads < 1 or batch_size < 1 or cuts < 0:
            raise InputError(
                "An evaluator needs threads >= 1, batch_size >= 1 and cuts >= 0, "
                f"not {threads}, {batch_size} and {cuts}."
            )
        self._supernet = supernet
        self._moments = moments if bn == "closed-form" else None
        self._images = np.ascontiguousarray(images, dtype=np.float32)
        self._labels = np.asarray(labels, dtype=np.int64)
        self._batch_size = batch_size
        self._threads = threads
        self._calibration = calibration
        self._n_cuts = cuts if calibration is None else 0
        self._chains = Kept[Subnet, list[Segment]](_FILES, _FILE_BYTES)
        self._sessions = Kept[str, onnxruntime.InferenceSession](_SESSIONS, _SESSION_BYTES)
        self._values = Kept[tuple[str, int, int], NDArray[np.float32]](_VALUES, _VALUE_BYTES)

    @property
    def space(self) -> SearchSpace:
        """The gates of the network."""
        return self._supernet.space

    @property
    def n_images(self) -> int:
        """Number of images that an accuracy is the mean of."""
        return len(self._labels)

    @cached_property
    def key(self) -> str:
        """``network:settings``: digests of the trained network, and of all else that an accuracy depends on."""
        settings = {
            "version": _VERSION,
            "moments": self._moments.digest if self._moments is not None else "stored",
            "images": _digest(self._images),
            "labels": _digest(self._labels),
            "batch_size": self._batch_size,
            "cuts": self._n_cuts,
            "onnxruntime": onnxruntime.__version__,
            **({"calibration": _digest(self._calibration)} if self._calibration is not None else {}),
            **({"blockwise": sorted(self._supernet.blockwise)} if self._supernet.blockwise else {}),
        }
        text = json.dumps(settings, sort_keys=True)
        return f"{self._supernet.digest[:16]}:{hashlib.sha256(text.encode()).hexdigest()[:16]}"

    @property
    def batch_size(self) -> int:
        """Images per run."""
        return self._batch_size

    def accuracy(self, subnet: Subnet) -> float:
        """Top-1 accuracy in percent. An image for which the network returns no finite number counts as wrong."""
        return 100.0 * float(self.right(subnet).mean())

    def right(self, subnet: Subnet, start: int = 0, stop: int | None = None) -> NDArray[np.bool_]:
        """Whether the subnet is right on each of the images from ``start`` to before ``stop``, by default all.

        Equal to that part of the answer for all images where ``start`` and ``stop`` are multiples of `batch_size`.
        """
        stop = self.n_images if stop is None else min(stop, self.n_images)
        chain = self._chain(subnet)
        starts = range(start, stop, self._batch_size)

        def of_batch(first: int) -> NDArray[np.bool_]:
            last = min(first + self._batch_size, stop)
            logits = self._logits(chain, first, last)
            finite = np.isfinite(logits).all(axis=1)
            return np.asarray((logits.argmax(axis=1) == self._labels[first:last]) & finite)

        # Whole batches side by side, each on one thread, take less time than threads that share every operator.
        with ThreadPoolExecutor(self._threads) as pool:
            return np.concatenate(list(pool.map(of_batch, starts)))

    def _logits(self, chain: list[Segment], first: int, last: int) -> NDArray[np.float32]:
        """The network's answers to some of the images, from the last value of the chain that is known."""
        value, known = self._images[first:last], 0
        for number in range(len(chain) - 1, 0, -1):
            kept = self._values.find((chain[number - 1].digest, first, last))
            if kept is not None:
                value, known = kept, number
                break
        for number, segment in enumerate(chain[known:], known + 1):
            session = self._session(segment)
            value = session.run(None, {session.get_inputs()[0].name: value})[0]
            if number < len(chain):
                self._values.add((segment.digest, first, last), value, value.nbytes)
        return value

    def _chain(self, subnet: Subnet) -> list[Segment]:
        def make() -> tuple[list[Segment], int]:
            chain = segments(self._model(subnet), self._cuts)
            return chain, sum(len(segment.model) for segment in chain)

        return self._chains.get(subnet, make)

    def _session(self, segment: Segment) -> onnxruntime.InferenceSession:
        def make() -> tuple[onnxruntime.InferenceSession, int]:
            session = onnxruntime.InferenceSession(
                segment.model, _session_options(), providers=["CPUExecutionProvider"]
            )
            return session, len(segment.model)

        return self._sessions.get(segment.digest, make)

    @cached_property
    def _cuts(self) -> dict[str, onnx.ValueInfoProto]:
        """Where chains are cut."""
        if not self._n_cuts:
            return {}
        return even_cuts(self._supernet.slice(self.space.full(), {}, pad=_PAD, packed=False), self._n_cuts)

    def _model(self, subnet: Subnet) -> onnx.ModelProto:
        statistics = self._moments.statistics(subnet) if self._moments is not None else None
        if self._calibration is None:
            return self._supernet.slice(subnet, statistics, pad=_PAD, packed=False)
        return calibrated(self._supernet, subnet, statistics, self._calibration)


def _session_options() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = False  # it would keep the activations of every session that is open
    return options


def _check(supernet: Supernet, images: NDArray[np.float32], labels: NDArray[np.int64]) -> None:
    if not len(images) or len(images) != len(labels):
        raise InputError(f"Accuracy needs as many labels as images, and some: got {len(images)} and {len(labels)}.")
    if tuple(images.shape[1:]) != tuple(supernet.input_shape):
        raise InputError(
            f"The images have shape {tuple(images.shape[1:])}, the network takes {tuple(supernet.input_shape)}.",
            hint="Use the data set that the network was trained on.",
        )


def _digest(array: NDArray[Any]) -> str:
    digest = hashlib.sha256(f"{array.dtype}{array.shape}".encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
