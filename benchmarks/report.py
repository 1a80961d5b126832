"""What every benchmark prints and keeps: its figures, and the machine and versions that they were measured with."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fn3hw.cli.console import plain
from fn3hw.space.files import write_text

PACKAGES = ("fn3hw", "torch", "torchvision", "onnx", "onnxruntime", "numpy", "scikit-learn")
SERVICE = ("fastapi", "uvicorn", "sqlalchemy", "dbos")
RESULTS = Path(__file__).parent / "results"


def machine(packages: Sequence[str] = PACKAGES) -> dict[str, Any]:
    """The machine and the versions."""
    cpu = next(
        (line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")), platform.processor()
    )
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
        "date": time.strftime("%Y-%m-%d"),
    }


def report(name: str, figures: dict[str, Any], *, packages: Sequence[str] = PACKAGES) -> None:
    """Print figures with the machine beside them, and keep them as ``results/NAME.json``."""
    document = {"figures": plain(figures), "machine": machine(packages)}
    text = json.dumps(document, indent=1, sort_keys=False)
    print(text)
    write_text(RESULTS / f"{name}.json", text + "\n")


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.is_file() else []
