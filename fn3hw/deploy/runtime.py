"""Opening ONNX models in ONNX Runtime on this machine, for accuracy and statistics (never for timing)."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]


def open_session(model: onnx.ModelProto | bytes, *, threads: int | None = 1) -> ort.InferenceSession:
    """An ONNX Runtime session on the CPU with ``threads`` threads, None for one per core, that do not spin idly."""
    threads = available_cores() if threads is None else threads
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if threads == 1 else "0")
    data = model if isinstance(model, bytes) else model.SerializeToString()
    return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def available_cores() -> int:
    """How many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def batches(images: FloatArray, size: int) -> Iterator[FloatArray]:
    """Consecutive batches of ``images`` (N, ...); the last one may be smaller."""
    for start in range(0, len(images), size):
        yield images[start : start + size]
