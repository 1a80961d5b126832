"""The measured profiles in profiles/: reference networks in fp32 and in integers, at one and at two threads.

The weights are random: latency does not depend on them. Every network has one quantizer with the settings integers and
fp32, so that a profile holds both. Of the raw samples, few of each round are kept (`thin.py`). On a device that counts
instructions, costs are those, of one thread.
Usage: python benchmarks/reference_profiles.py [--device COMMAND] [NETWORK ...]; what is there is left as it is
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from cost_model import tell
from report import report
from thin import thinned

from fn3hw.cost import fit_cost
from fn3hw.deploy import Supernet, export
from fn3hw.profiler import Profile, Runtime, connect, profile
from fn3hw.space import Bits, nest
from fn3hw.space.networks import build
from fn3hw.space.quantizer import Schedule
from fn3hw.space.subnet import Subnet

FOLDER = Path(__file__).parent.parent / "profiles"
SUBNETS, TESTS = 30, 12
ROUNDS = 3
"""Rounds per subnet where time is measured."""
THREADS = (1, 2)
INTEGERS = Bits(schedule=Schedule(levels=(64, 127), full_precision=True), groups=1)


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A network that is profiled: its name in `fn3hw.space.networks`, its options, and what is gated."""

    network: str
    n_classes: int
    input_shape: tuple[int, ...]
    levels: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)

    def supernet(self) -> Supernet:
        """Exported with random weights, at least a quarter of its channels and neurons kept."""
        torch.manual_seed(0)
        module = build(self.network, n_classes=self.n_classes, input_shape=self.input_shape, **self.options).eval()
        keep = {level: 0.25 for level in self.levels if level in ("channel", "neuron", "path")}
        example = torch.zeros(1, *self.input_shape)
        return export(nest(module, example, (*self.levels, "bit"), keep=keep, bits=INTEGERS))


IMAGENET: dict[str, Any] = {"n_classes": 1000, "input_shape": (3, 224, 224)}
REFERENCES = {
    "mlp": Reference(network="mlp", n_classes=10, input_shape=(1, 28, 28), levels=("neuron",)),
    "mobilenet_small": Reference(
        network="mobilenet_small", n_classes=10, input_shape=(1, 28, 28), levels=("channel", "layer")
    ),
    "resnext29": Reference(network="resnext29", n_classes=10, input_shape=(3, 32, 32), levels=("path", "layer")),
    "mobilenet_v2": Reference(network="torchvision/mobilenet_v2", levels=("channel",), **IMAGENET),
    "resnet50": Reference(network="torchvision/resnet50", levels=("channel",), **IMAGENET),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("networks", nargs="*", default=list(REFERENCES))
    parser.add_argument("--device", default="local")
    asked = parser.parse_args()
    with connect(asked.device) as session:
        key = session.device.key
    rounds = ROUNDS if not key.get("emulated") else None
    counts = bool(key.get("counts_instructions"))
    folder = FOLDER / slug(f"{'emulated' if key.get('emulated') else key['cpu_model']} {key['machine']}")
    folder.mkdir(exist_ok=True)
    rows = {}
    for name in asked.networks:
        supernet = REFERENCES[name].supernet()
        for threads in THREADS[:1] if counts else THREADS:
            path = folder / f"{name}-{threads}-thread{'s' * (threads > 1)}.json"
            rows[path.stem] = describe(supernet, measured(supernet, asked.device, name, path, rounds, threads))
    report(
        f"profiles-{folder.name}",
        {"device": key["cpu_model"], "subnets": SUBNETS, "tested_on": TESTS, "profiles": rows},
    )


def measured(supernet: Supernet, device: str, name: str, path: Path, rounds: int | None, threads: int) -> Profile:
    """The profile from its file, or measured; a journal beside the file keeps what was measured so far."""
    if path.is_file():
        return Profile.read(path)
    journal = path.with_suffix(".journal")
    runtime = Runtime(intra_op_threads=threads)
    found = profile(
        supernet,
        device,
        SUBNETS,
        holdout=TESTS,
        rounds=rounds,
        runtime=runtime,
        name=name,
        journal=journal,
        progress=tell,
    )
    thinned(found).write(path)
    journal.unlink(missing_ok=True)
    return found


def describe(supernet: Supernet, found: Profile) -> dict[str, Any]:
    """Cost of the full network in fp32 and in integers, and how well the cost model knows the rest."""
    cost, space = fit_cost(found), supernet.space
    bit = next(gate for gate in space if gate.level == "bit")
    full, integers = space.full(), space.from_counts({bit.name: bit.size - 1})
    return {
        "full_latency_ms": found.reference.latency_ms,
        "relative_cost_of_integers": float(cost.relative([integers])["relative"].iloc[0]),
        "relative_cost_of_the_smallest": float(cost.relative([space.smallest()])["relative"].iloc[0]),
        "size_mib": [size_mib(supernet, full), size_mib(supernet, integers)],
        "holdout": cost.holdout.to_json(),
        "repeat_mape": found.noise.repeat_mape,
        "verdict": found.verdict,
    }


def size_mib(supernet: Supernet, subnet: Subnet) -> float:
    """Size of the subnet's file."""
    return float(supernet.slice(subnet).ByteSize() / 2**20)


def slug(text: str) -> str:
    """A name for a folder."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


if __name__ == "__main__":
    main()
