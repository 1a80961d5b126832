"""Accuracy of a subnet: its sliced ONNX file, with corrected batch norm, run in ONNX Runtime on held-out images."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from fn3hw.deploy import Supernet, calibrated
from fn3hw.deploy.runtime import available_cores
from fn3hw.errors import InputError
from fn3hw.space.subnet import SearchSpace, Subnet

_VERSION = 2
_SESSIONS = 16
"""Sessions that stay open, at most: those of the candidates that race."""
_SESSION_BYTES = 2**28
"""Of their files together."""
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
    """Evaluates subnets on fixed images. Safe to call from several threads; holds the sessions of a few subnets.

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
    ) -> None:
        _check(supernet, images, labels)
        if bn not in ("closed-form", "stored") or (bn == "closed-form" and moments is None):
            raise InputError(f"bn={bn!r} needs to be 'closed-form', with moments, or 'stored'.")
        threads = available_cores() if threads is None else threads
        if threads < 1 or batch_size < 1:
            raise InputError(f"An evaluator needs threads >= 1 and batch_size >= 1, not {threads} and {batch_size}.")
        self._supernet = supernet
        self._moments = moments if bn == "closed-form" else None
        self._images = np.ascontiguousarray(images, dtype=np.float32)
        self._labels = np.asarray(labels, dtype=np.int64)
        self._batch_size = batch_size
        self._threads = threads
        self._calibration = calibration
        self._sessions = _Sessions()

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs: all but the sessions."""
        return {name: value for name, value in vars(self).items() if name != "_sessions"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """In another process."""
        vars(self).update(state)
        self._sessions = _Sessions()

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
        session = self._sessions.find(subnet)
        if session is None:
            session = self._sessions.add(subnet, self._model(subnet).SerializeToString())
        name = session.get_inputs()[0].name
        starts = range(start, stop, self._batch_size)

        def of_batch(first: int) -> NDArray[np.bool_]:
            last = min(first + self._batch_size, stop)
            options = _FREEING if first == starts[-1] else None
            logits = session.run(None, {name: self._images[first:last]}, options)[0]
            finite = np.isfinite(logits).all(axis=1)
            return np.asarray((logits.argmax(axis=1) == self._labels[first:last]) & finite)

        # Whole batches side by side, each on one thread, take less time than threads that share every operator.
        with ThreadPoolExecutor(self._threads) as pool:
            return np.concatenate(list(pool.map(of_batch, starts)))

    def _model(self, subnet: Subnet) -> onnx.ModelProto:
        statistics = self._moments.statistics(subnet) if self._moments is not None else None
        if self._calibration is None:
            return self._supernet.slice(subnet, statistics, pad=_PAD, packed=False)
        return calibrated(self._supernet, subnet, statistics, self._calibration)


class _Sessions:
    """Open sessions of the last subnets: a few, and of large files fewer."""

    def __init__(self) -> None:
        self._open: OrderedDict[Subnet, tuple[onnxruntime.InferenceSession, int]] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, subnet: Subnet) -> onnxruntime.InferenceSession | None:
        """The session of a subnet, if it is open."""
        with self._lock:
            if subnet not in self._open:
                return None
            self._open.move_to_end(subnet)
            return self._open[subnet][0]

    def add(self, subnet: Subnet, model: bytes) -> onnxruntime.InferenceSession:
        """Open the session of a subnet; those that were not used for longest are closed."""
        session = onnxruntime.InferenceSession(model, _session_options(), providers=["CPUExecutionProvider"])
        with self._lock:
            self._open[subnet] = session, len(model)
            while len(self._open) > 1 and (
                len(self._open) > _SESSIONS or sum(size for _, size in self._open.values()) > _SESSION_BYTES
            ):
                self._open.popitem(last=False)
        return session


def _session_options() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return options


def _freeing() -> onnxruntime.RunOptions:
    options = onnxruntime.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


_FREEING = _freeing()
"""Options of a session's last run for a while: it gives the memory of activations back."""


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
