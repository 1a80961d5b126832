from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from fn3hw.errors import InputError
from fn3hw.space import Nested
from fn3hw.training import Data, Progress, Recipe, Run, load_data, recipe_network, train
from fn3hw.training.loop import learning_rate


def recipe(**changes: object) -> Recipe:
    settings = {
        "epochs": 2,
        "batch_size": 64,
        "learning_rate": 0.05,
        "network": {"name": "mlp", "options": {"hidden": [24, 16]}, "levels": ["neuron"]},
        "data": {"name": "digits", "search": 200},
        "sampling": {"full": True, "distill": True},
    }
    return Recipe.of({**settings, **changes})


def convolutional(**changes: object) -> Recipe:
    options = {"stem": 6, "stages": [[8, 2, 2]], "expand": 2, "head": 12}
    network = {"name": "mobilenet_small", "options": options, "levels": ["channel", "layer"]}
    return recipe(network=network, **changes)


@pytest.fixture(scope="module")
def digits() -> Data:
    return load_data("digits", search=200)


def accuracy(net: Nested, data: Data, share: float) -> float:
    subnet = net.space.from_counts({g.name: max(g.min_kept, round(share * g.size)) for g in net.space})
    images, labels = data.arrays("test")
    with torch.no_grad(), net.active(subnet):
        found = net(torch.from_numpy(images)).argmax(dim=1).numpy()
    return float((found == labels).mean())


def test_ordered_training_makes_small_subnets_accurate(digits: Data) -> None:
    nets = {}
    for ordered in (True, False):
        chosen = recipe(epochs=12, sampling={"ordered": ordered, "full": ordered})
        nets[ordered] = recipe_network(chosen, digits)
        history = train(nets[ordered], digits, chosen)
        assert history[-1].loss < 0.5 * history[0].loss
    assert accuracy(nets[True], digits, 1.0) > 0.9
    assert accuracy(nets[True], digits, 0.25) > accuracy(nets[False], digits, 0.25) + 0.1


class Stop(Exception):
    pass


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path: Path, digits: Data, optimiser: str) -> None:
    chosen = convolutional(epochs=3, optimiser=optimiser, learning_rate=0.01, warm_up=0.5)

    def stop_in_second_epoch(progress: Progress) -> None:
        if progress.epoch == 1:
            raise Stop

    whole = recipe_network(chosen, digits)
    expected = train(whole, digits, chosen)
    with pytest.raises(Stop):
        first = recipe_network(chosen, digits)
        train(first, digits, chosen, run=Run.create(tmp_path, chosen), progress=stop_in_second_epoch)
    resumed = recipe_network(chosen, digits)
    history = train(resumed, digits, chosen, run=Run.open(tmp_path))
    assert [e.loss for e in history] == [e.loss for e in expected]
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_a_killed_training_goes_on(tmp_path: Path, digits: Data) -> None:
    code = (
        "import sys; from fn3hw.training import *; r = Recipe.load(sys.argv[1]); d = recipe_data(r); "
        "train(recipe_network(r, d), d, r, run=Run.create(sys.argv[2], r))"
    )
    chosen = convolutional(epochs=500)
    run = Run.create(tmp_path / "run", chosen)
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "run/run.toml"), str(tmp_path / "run")])
    (tmp_path / "run/run.toml").write_text((tmp_path / "run/run.toml").read_text().replace("format = 1\n", ""))
    deadline = time.monotonic() + 60
    while run.load_checkpoint() is None and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    checkpoint = run.load_checkpoint()
    assert checkpoint is not None
    shorter = chosen.model_copy(update={"epochs": len(checkpoint.history) + 1})
    history = train(recipe_network(shorter, digits), digits, shorter, run=Run(tmp_path / "run", shorter))
    assert [e.epoch for e in history] == list(range(len(checkpoint.history) + 1))


def test_running_statistics_are_those_of_the_full_network(digits: Data) -> None:
    chosen = convolutional(epochs=1, sampling={"full": True})
    net = recipe_network(chosen, digits)
    train(net, digits, chosen)
    alone = recipe_network(chosen, digits)
    before = {k: v.clone() for k, v in alone.state_dict().items() if "running" in k}
    only_subnets = convolutional(epochs=1, sampling={"full": False})
    train(alone, digits, only_subnets)
    assert any(not torch.equal(before[k], v) for k, v in alone.state_dict().items() if k in before)
    images, _ = digits.arrays("train", 512)
    seen: list[torch.Tensor] = []
    norm = net.module.get_submodule("head.1")
    handle = norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].mean(dim=(0, 2, 3))))
    with torch.no_grad():
        net(torch.from_numpy(images))
    handle.remove()
    scale = norm.running_var.sqrt()  # type: ignore[union-attr,operator]
    assert float(((seen[0] - norm.running_mean) / scale).abs().mean()) < 0.5


def test_divergence_is_an_error_and_keeps_the_checkpoint(tmp_path: Path, digits: Data) -> None:
    good = recipe(epochs=1)
    run = Run.create(tmp_path, good)
    train(recipe_network(good, digits), digits, good, run=run)
    wild = recipe(epochs=3, learning_rate=1e30)
    with pytest.raises(InputError, match="diverged") as caught:
        train(recipe_network(wild, digits), digits, wild, run=Run(tmp_path, wild))
    assert "learning_rate" in caught.value.hint
    checkpoint = run.load_checkpoint()
    assert checkpoint is not None and len(checkpoint.history) == 1


def test_learning_rate_schedules() -> None:
    cosine = recipe(epochs=10, warm_up=1.0, learning_rate=1.0)
    assert learning_rate(cosine, 0, 100) == pytest.approx(0.01)
    assert learning_rate(cosine, 100, 100) == pytest.approx(1.0)
    assert learning_rate(cosine, 550, 100) == pytest.approx(0.5)
    stepped = recipe(epochs=10, schedule="step", step_epochs=4, step_factor=0.5, learning_rate=1.0)
    assert [learning_rate(stepped, e * 100, 100) for e in (0, 4, 8)] == [1.0, 0.5, 0.25]


def test_a_batch_larger_than_the_data_is_refused(digits: Data) -> None:
    chosen = recipe(batch_size=5000)
    with pytest.raises(InputError, match="more than the"):
        train(recipe_network(chosen, digits), digits, chosen)


def test_progress_counts_to_the_end(digits: Data) -> None:
    seen: list[Progress] = []
    train(recipe_network(recipe(), digits), digits, recipe(), progress=seen.append)
    assert seen[-1].step == seen[-1].steps and seen[-1].seconds_left == 0
    assert all(math.isfinite(p.loss) for p in seen)
    assert np.all(np.diff([p.step for p in seen]) > 0)
