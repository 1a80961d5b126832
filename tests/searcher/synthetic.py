"""A synthetic device and a synthetic network: known costs with alignment penalties, known accuracies."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import norm

from fn3hw.space.gate import Gate
from fn3hw.space.subnet import SearchSpace, Subnet


def make_space(branches: int = 8) -> SearchSpace:
    gates = []
    for b in range(branches):
        width = (32, 48, 64, 96, 96, 128, 128, 192)[b % 8]
        gates.append(Gate(f"branch{b}.hidden", "channel", width, max(1, width // 4)))
        if b % 2:
            gates.append(Gate(f"branch{b}.squeeze", "channel", width // 4, 2))
        if b % 4 != 0:
            gates.append(Gate(f"branch{b}", "layer", 1, 0))
    return SearchSpace(gates)


class SyntheticCost:
    """Steps of 16 channels, and a third more time for widths that are no multiple of 4."""

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self.asked = 0

    def _terms(self, counts: dict[str, int]) -> tuple[float, float]:
        time_ms, size = 0.8, 0.4
        for gate in self.space:
            if gate.level == "layer" and counts[gate.name]:
                time_ms += 0.05
            if gate.level == "layer":
                continue
            branch = gate.name.split(".")[0]
            if counts.get(branch, 1):
                n = counts[gate.name]
                per_step = 0.03 * (1 + int(branch[6:]) % 3)
                time_ms += per_step * -(-n // 16) * (1.0 if n % 4 == 0 else 1.35)
                size += 0.004 * n * (1 + int(branch[6:]))
        return time_ms, size

    def predict(self, subnets: Sequence[Subnet]) -> pd.DataFrame:
        self.asked += len(subnets)
        rows = [self._terms(s.counts) for s in subnets]
        time_ms, size = np.array(rows).reshape(-1, 2).T
        table = {
            "latency_ms": time_ms,
            "latency_ms_low": 0.98 * time_ms,
            "latency_ms_high": 1.02 * time_ms,
            "peak_mib": 20 + size,
            "size_mib": size,
        }
        return pd.DataFrame(table, index=[s.id for s in subnets])


class SyntheticAccuracy:
    """Unequal sensitivities, pairwise interactions, saturation, and the noise of ``images`` images."""

    def __init__(self, space: SearchSpace, *, seed: int = 0, images: int | None = 1000) -> None:
        rng = np.random.default_rng(seed)
        self.space = space
        self.images = images
        self.calls = 0
        self.seconds = 0.0
        n = len(space)
        self._weight = 0.25 * rng.lognormal(-2.0, 1.3, n)
        self._power = rng.uniform(1.0, 4.0, n)
        self._pairs = rng.choice(n, size=(n, 2))
        self._pair_weight = 0.25 * rng.lognormal(-2.5, 1.0, n)

    @property
    def key(self) -> str:
        return "synthetic:1"

    def expected(self, subnet: Subnet) -> float:
        counts = subnet.counts
        removed = np.zeros(len(self.space))
        for i, g in enumerate(self.space):
            dead = g.level != "layer" and not counts.get(g.name.split(".")[0], 1)
            removed[i] = 0.0 if dead else (g.size - counts[g.name]) / g.size
        loss = self._weight @ removed**self._power
        loss += self._pair_weight @ (removed[self._pairs[:, 0]] * removed[self._pairs[:, 1]])
        return float(10 + 82 * np.exp(-1.6 * loss))

    def accuracy(self, subnet: Subnet) -> float:
        self.calls += 1
        time.sleep(self.seconds)
        p = self.expected(subnet) / 100
        if self.images is None:
            return 100 * p
        seed = int(hashlib.sha256(subnet.id.encode()).hexdigest()[:8], 16)
        return 100 * float(np.random.default_rng(seed).binomial(self.images, p)) / self.images


def archived(folder: Path) -> list[str]:
    """What the archive of a search says line by line, but for the seconds."""
    return [line.split('"seconds"')[0] for line in (folder / "archive.jsonl").read_text().splitlines()]


class SyntheticImages(SyntheticAccuracy):
    """Also says which images a subnet is right on; most are as hard for one subnet as for another."""

    batch_size = 16

    def __init__(self, space: SearchSpace, *, seed: int = 0, n_images: int = 1000, shared: float = 0.9) -> None:
        super().__init__(space, seed=seed, images=n_images)
        self.n_images = n_images
        self.seen = 0
        self._share = shared
        self._hardness = np.random.default_rng(seed).standard_normal(n_images)

    def right(self, subnet: Subnet, start: int = 0, stop: int | None = None) -> NDArray[np.bool_]:
        self.calls += 1
        stop = self.n_images if stop is None else stop
        self.seen += stop - start
        own = np.random.default_rng(int(hashlib.sha256(subnet.id.encode()).hexdigest()[:8], 16))
        hardness = self._share * self._hardness + np.sqrt(1 - self._share**2) * own.standard_normal(self.n_images)
        return np.asarray(norm.cdf(hardness) < self.expected(subnet) / 100)[start:stop]

    def accuracy(self, subnet: Subnet) -> float:
        return 100 * float(self.right(subnet).mean())
