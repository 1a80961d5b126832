"""The search on a real, small network: sliced files in ONNX Runtime, exported and compared with the masked supernet."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray

from fn3hw.deploy import Moments, Supernet, calibrated, export, recalibrate
from fn3hw.errors import InputError
from fn3hw.searcher import Evaluator, Heuristic, search
from fn3hw.searcher.verify import masked_difference
from fn3hw.space.placing import nest
from fn3hw.space.subnet import SearchSpace, Subnet
from tests.networks import images, quantized


class Block(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(
            torch.nn.Conv2d(8, 16, 1, bias=False),
            torch.nn.BatchNorm2d(16),
            torch.nn.ReLU(),
            torch.nn.Conv2d(16, 8, 3, padding=1, bias=False),
            torch.nn.BatchNorm2d(8),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x)


@pytest.fixture(scope="module")
def supernet() -> Supernet:
    torch.manual_seed(0)
    head = [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, 4)]
    stem = [torch.nn.Conv2d(1, 8, 3, padding=1, bias=False), torch.nn.BatchNorm2d(8), torch.nn.ReLU()]
    module = torch.nn.Sequential(*stem, Block(), Block(), *head)
    return export(nest(module, torch.zeros(1, 1, 8, 8), levels=("channel", "layer")))


class Data:
    def arrays(self, split: str, limit: int | None = None) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        rng = np.random.default_rng(len(split))
        n = min(limit or 300, 300)
        return rng.standard_normal((n, 1, 8, 8)).astype(np.float32), rng.integers(0, 4, n)


class Cost:
    """Blocks as milliseconds."""

    def __init__(self, space: SearchSpace) -> None:
        self.space = space

    def predict(self, subnets: Sequence[Subnet]) -> pd.DataFrame:
        ms = np.array([1.0 + sum(s.counts.values()) for s in subnets])
        table = {"latency_ms": ms, "latency_ms_low": ms, "latency_ms_high": ms, "peak_mib": ms, "size_mib": ms}
        return pd.DataFrame(table, index=[s.id for s in subnets])


def test_accuracy_is_that_of_the_sliced_file(supernet: Supernet) -> None:
    images, labels = Data().arrays("search", 50)
    moments = Moments.collect(supernet, Data().arrays("train", 64)[0], subnets=4, threads=1)
    evaluator = Evaluator(supernet, moments, images, labels, threads=1, batch_size=16)
    subnet = supernet.space.random(np.random.default_rng(0), prefix=True)
    model = supernet.slice(subnet, moments.statistics(subnet))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = 100 * (session.run(None, {"input": images})[0].argmax(axis=1) == labels).mean()
    assert evaluator.accuracy(subnet) == pytest.approx(expected) == evaluator.accuracy(subnet)


def test_parts_of_the_images_are_answered_like_all_of_them(supernet: Supernet) -> None:
    images, labels = Data().arrays("search", 100)
    evaluator = Evaluator(supernet, None, images, labels, bn="stored", batch_size=16)
    for seed in range(3):
        subnet = supernet.space.random(np.random.default_rng(seed), prefix=True)
        whole = evaluator.right(subnet)
        parts = [evaluator.right(subnet, start, start + 32) for start in range(0, 100, 32)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)
        assert evaluator.accuracy(subnet) == 100 * whole.mean()


def test_an_evaluator_says_the_same_in_another_process(supernet: Supernet) -> None:
    images, labels = Data().arrays("search", 50)
    moments = Moments.collect(supernet, Data().arrays("train", 64)[0], subnets=4, threads=1)
    evaluator = Evaluator(supernet, moments, images, labels)
    subnet = supernet.space.random(np.random.default_rng(0), prefix=True)
    before = evaluator.right(subnet)
    other = pickle.loads(pickle.dumps(evaluator))
    assert other.key == evaluator.key
    np.testing.assert_array_equal(other.right(subnet), before)


def test_what_a_subnet_shares_with_one_before_it_is_not_computed_again(
    supernet: Supernet, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels = Data().arrays("search", 64)
    evaluator = Evaluator(supernet, None, images, labels, bn="stored", batch_size=16, cuts=3)
    opened: list[bytes] = []
    session = onnxruntime.InferenceSession

    def opening(model: bytes, *args: object, **options: object) -> onnxruntime.InferenceSession:
        opened.append(model)
        return session(model, *args, **options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", opening)
    space = supernet.space
    last = [gate for gate in space if gate.level == "channel"][-1]
    evaluator.right(space.full())
    whole = len(opened)
    later = space.from_counts({last.name: last.size - 1})
    shared = evaluator.right(later)
    assert whole > 1 and 0 < len(opened) - whole < whole
    alone = Evaluator(supernet, None, images, labels, bn="stored", batch_size=16)
    np.testing.assert_array_equal(shared, alone.right(later))


def test_what_is_kept_stays_within_bounds_and_answers_do_not_change(
    supernet: Supernet, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels = Data().arrays("search", 40)
    rng = np.random.default_rng(0)
    subnets = [supernet.space.random(rng) for _ in range(12)]
    roomy = Evaluator(supernet, None, images, labels, bn="stored", cuts=3)
    for limit in ("_FILE_BYTES", "_SESSION_BYTES", "_VALUE_BYTES"):
        monkeypatch.setattr(f"fn3hw.searcher.evaluator.{limit}", 1)
    tight = Evaluator(supernet, None, images, labels, bn="stored", cuts=3)
    for subnet in (*subnets, *subnets):
        np.testing.assert_array_equal(tight.right(subnet), roomy.right(subnet))
    assert [len(kept) for kept in (tight._chains, tight._sessions, tight._values)] == [1, 1, 1]


def test_quantized_networks_are_evaluated_as_the_integers_that_they_are() -> None:
    _, network = quantized()
    calibration, x, labels = images(32, seed=1), images(60), np.arange(60) % 5
    subnet = network.space.from_counts({gate.name: 2 for gate in network.space if gate.level == "bit"})
    model = calibrated(network, subnet, None, calibration)
    assert any(node.op_type == "QuantizeLinear" for node in model.graph.node)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = 100 * (session.run(None, {"input": x})[0].argmax(axis=1) == labels).mean()
    evaluator, other = (
        Evaluator(network, None, x, labels, bn="stored", calibration=part) for part in (calibration, calibration[:9])
    )
    assert evaluator.accuracy(subnet) == pytest.approx(expected) and evaluator.key != other.key


def test_key_changes_with_all_that_the_accuracy_depends_on(supernet: Supernet) -> None:
    images, labels = Data().arrays("search", 50)
    train = Data().arrays("train", 64)[0]
    moments = [Moments.collect(supernet, train, subnets=4, seed=s, threads=1) for s in (0, 1)]
    keys = [
        Evaluator(supernet, moments[0], images, labels).key,
        Evaluator(supernet, moments[1], images, labels).key,
        Evaluator(supernet, moments[0], images + 1, labels).key,
        Evaluator(supernet, moments[0], images, 3 - labels).key,
        Evaluator(supernet, moments[0], images, labels, bn="stored").key,
    ]
    assert len(set(keys)) == len(keys)
    assert {key.split(":")[0] for key in keys} == {supernet.digest[:16]}
    assert keys[0] == Evaluator(supernet, moments[0], images, labels, threads=1).key


@pytest.mark.parametrize("images, labels", [((5, 1, 9, 9), 5), ((5, 1, 8, 8), 4), ((0, 1, 8, 8), 0)])
def test_images_that_do_not_fit_are_refused(supernet: Supernet, images: tuple[int, ...], labels: int) -> None:
    with pytest.raises(InputError):
        Evaluator(supernet, None, np.zeros(images, np.float32), np.zeros(labels, np.int64), bn="stored")


def test_an_image_without_finite_logits_counts_as_wrong(supernet: Supernet) -> None:
    images, _ = Data().arrays("search", 8)
    images[:] = np.nan
    evaluator = Evaluator(supernet, None, images, np.zeros(8, np.int64), bn="stored")
    assert evaluator.accuracy(supernet.space.full()) == 0.0


@pytest.mark.parametrize("seed", range(5))
def test_a_sliced_file_agrees_with_the_masked_supernet(supernet: Supernet, seed: int) -> None:
    images = Data().arrays("train", 64)[0]
    subnet = supernet.space.random(np.random.default_rng(seed))
    statistics = recalibrate(supernet, subnet, images, threads=1)
    model = supernet.slice(subnet, statistics)
    assert masked_difference(supernet, subnet, statistics, model, images) < 1e-4
    if subnet != supernet.space.full():
        other = supernet.slice(supernet.space.full())
        assert masked_difference(supernet, subnet, statistics, other, images) > 1e-3


def test_search_lookup_and_export(supernet: Supernet, tmp_path: Path) -> None:
    settings = Heuristic(evaluations=20)
    atlas = search(supernet, Cost(supernet.space), Data(), folder=tmp_path, images=100, threads=1, settings=settings)
    slowest = max(p.latency_ms for p in (*atlas.points, *atlas.dominated))
    point = atlas.lookup(latency_ms=0.9 * slowest)
    exported = point.export(tmp_path / "model.onnx", verify_on=None)
    onnx.checker.check_model(str(exported.path))
    assert exported.max_abs_diff < 1e-4
    with pytest.raises(InputError, match="profile"):
        point.export(tmp_path / "other.onnx")
