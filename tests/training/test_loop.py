from __future__ import annotations

import errno
import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fn3hw.errors import InputError, RunError
from fn3hw.space.nested import Nested
from fn3hw.space.placing import nest
from fn3hw.training import Data, Epoch, Progress, Recipe, Run, accuracy, loop, train
from fn3hw.training.statistics import frozen_statistics, recompute_statistics
from tests.training.conftest import SHAPE, make_data, make_net, make_recipe


class Killed(Exception):
    """Stands for the kill of the process."""


def kill_at(step: int) -> Any:
    def progress(p: Progress) -> None:
        if p.step >= step:
            raise Killed

    return progress


@pytest.fixture
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Report, and save, after every step."""
    monkeypatch.setattr(loop, "PROGRESS_EVERY", 1)


def same_weights(a: Nested, b: Nested) -> bool:
    first, second = a.state_dict(), b.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def without_seconds(history: list[Epoch]) -> list[tuple[Any, ...]]:
    return [(e.epoch, e.loss, e.learning_rate, e.seen, e.accuracy) for e in history]


class TestLearning:
    def test_the_full_network_and_small_subnets_learn(self, data: Data) -> None:
        recipe = make_recipe(epochs=12, data={"flip": False}, sampling={"smallest": True})
        net = make_net(recipe, data)
        history = train(net, data, recipe)
        assert history[-1].loss < 0.5 * history[0].loss
        assert accuracy(net, data, "test") > 90
        images, labels = map(torch.from_numpy, data.arrays("train"))
        net.train()
        with torch.no_grad(), net.active(net.space.smallest()):
            small = (net(images).argmax(1) == labels).double().mean()
        assert small > 0.5

    def test_blocks_come_out_ordered(self) -> None:
        """The paper's claim: later blocks matter less. Plain training has no such order."""
        data = make_data(200)
        kept: dict[bool, float] = {}
        for ordered in (True, False):
            recipe = make_recipe(
                network={"name": "mlp", "options": {"hidden": [24]}, "levels": ["neuron"], "keep": {}},
                sampling={"ordered": ordered, "full": False, "distill": False},
                epochs=15,
                data={"flip": False, "shift": 0},
            )
            net = make_net(recipe, data)
            train(net, data, recipe)
            (gate,) = net.space
            images, labels = map(torch.from_numpy, data.arrays("train"))
            with torch.no_grad(), net.active(net.space.from_counts({gate.name: 4})):
                kept[ordered] = float(F.cross_entropy(net(images), labels))
        assert kept[True] < 0.5 * kept[False]

    @pytest.mark.parametrize("optimiser", ["sgd", "adam", "adamw"])
    @pytest.mark.parametrize("precision", ["fp32", "bf16"])
    def test_every_optimiser_and_precision_lowers_the_loss(self, data: Data, optimiser: str, precision: str) -> None:
        recipe = make_recipe(optimiser=optimiser, precision=precision, learning_rate=0.01, clip_gradient=1.0, epochs=4)
        history = train(make_net(recipe, data), data, recipe)
        assert history[-1].loss < history[0].loss

    def test_compiling_the_full_network_changes_rounding_only(
        self, data: Data, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # What is traced is what any back end compiles; this one needs no compiler.
        monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
        nets = []
        for compiled in (False, True):
            recipe = make_recipe(epochs=1, sampling={"full": True, "distill": True}, compile=compiled)
            nets.append(make_net(recipe, data))
            train(nets[-1], data, recipe)
        first, second = (net.state_dict() for net in nets)
        for name, tensor in first.items():
            torch.testing.assert_close(second[name], tensor, rtol=1e-3, atol=1e-4)

    def test_a_step_is_one_of_the_optimiser_on_the_sum_of_the_passes(self, data: Data) -> None:
        """Against the same step written out: full network on labels, a random subnet on its soft outputs."""
        from fn3hw.training.ordered import step_passes

        recipe = make_recipe(
            epochs=1,
            batch_size=80,
            momentum=0.0,
            weight_decay=0.0,
            schedule="constant",
            data={"shift": 0, "flip": False},
        )
        trained, net = make_net(recipe, data), make_net(recipe, data)
        train(trained, data, recipe)
        ((x, y),) = data.training_batches(80, seed=0, epoch=0)
        _, random = step_passes(net.space, recipe.sampling, seed=0, step=0)
        net.train()
        logits = net(x)
        loss = F.cross_entropy(logits, y)
        with net.active(random.subnet):
            loss = loss + F.cross_entropy(net(x), logits.detach().softmax(1))
        loss.backward()
        for (name, after), before in zip(trained.named_parameters(), net.parameters(), strict=True):
            step = recipe.learning_rate * before.grad if before.grad is not None else torch.zeros_like(before)
            assert torch.allclose(after, before - step, atol=1e-5), name

    def test_the_callers_random_numbers_are_left_alone(self, data: Data) -> None:
        recipe = make_recipe(epochs=1)
        net = make_net(recipe, data)
        before = torch.get_rng_state()
        train(net, data, recipe)
        assert torch.equal(before, torch.get_rng_state()) and not net.training

    def test_seeds_decide_the_result(self, data: Data) -> None:
        nets = []
        for seed in (0, 0, 1):
            recipe = make_recipe(epochs=1)
            nets.append(make_net(recipe, data))
            train(nets[-1], data, recipe.replace(seed=seed))
        assert same_weights(nets[0], nets[1]) and not same_weights(nets[0], nets[2])


class TestProgress:
    def test_progress_counts_to_the_end(self, data: Data, every_step: None) -> None:
        seen: list[Progress] = []
        recipe = make_recipe(evaluate=10)
        history = train(make_net(recipe, data), data, recipe, progress=seen.append)
        assert [p.step for p in seen] == list(range(1, 16)) and {p.steps for p in seen} == {15}
        assert seen[-1].seconds_left == 0.0 and all(p.seconds_left >= 0 for p in seen)
        assert [p.accuracy for p in seen[5::5]] == [e.accuracy for e in history[:2]]
        assert [e.epoch for e in history] == [0, 1, 2] and history[-1].seen == 3 * 80 * 2

    def test_history_is_kept_in_the_run(self, data: Data, tmp_path: Path) -> None:
        recipe = make_recipe()
        run = Run.create(tmp_path, recipe)
        history = train(make_net(recipe, data), data, recipe, run=run)
        assert [Epoch(**entry) for entry in run.history()] == history


class TestStatistics:
    """Batch norm's running statistics are those of the full network."""

    def test_frozen_statistics_stay_for_sliced_and_masked_subnets(self, data: Data) -> None:
        recipe = make_recipe()
        net = make_net(recipe, data).train()
        before = {name: value.clone() for name, value in net.named_buffers() if "running" in name}
        assert before
        for sliced in (True, False):
            with frozen_statistics(net), net.active(net.space.smallest(), sliced=sliced):
                net(torch.randn(4, *SHAPE))
        assert all(torch.equal(value, before[name]) for name, value in net.named_buffers() if name in before)
        net(torch.randn(4, *SHAPE))
        assert not all(torch.equal(value, before[name]) for name, value in net.named_buffers() if name in before)

    @pytest.mark.parametrize("full", [True, False])
    def test_the_full_network_tells_the_same_with_its_statistics_as_with_the_batchs(
        self, data: Data, full: bool
    ) -> None:
        recipe = make_recipe(
            epochs=30, sampling={"full": full, "distill": full}, data={"shift": 0, "flip": False}, learning_rate=0.02
        )
        net = make_net(recipe, data)
        train(net, data, recipe)
        images = torch.from_numpy(data.arrays("train")[0])
        with torch.no_grad():
            with_its_own = net(images)
            net.train()
            with_the_batchs = net(images)
        agree = (with_its_own.argmax(1) == with_the_batchs.argmax(1)).double().mean()
        assert agree > 0.95

    def test_recomputed_statistics_are_the_mean_over_the_batches(self) -> None:
        norm = nn.BatchNorm2d(2, momentum=0.3)
        batches = [torch.randn(8, 2, 3, 3) * scale for scale in (1.0, 2.0, 5.0)]
        recompute_statistics(norm, batches)
        variances = torch.stack([b.transpose(0, 1).flatten(1).var(1) for b in batches])
        assert torch.allclose(norm.running_var, variances.mean(0), rtol=1e-4) and norm.momentum == 0.3


class TestResuming:
    @pytest.mark.parametrize("optimiser", ["sgd", "adam"])
    @pytest.mark.parametrize("step", [1, 5, 7, 14])
    def test_a_training_killed_at_any_step_ends_with_the_same_weights(
        self, data: Data, tmp_path: Path, every_step: None, optimiser: str, step: int
    ) -> None:
        recipe = make_recipe(optimiser=optimiser, learning_rate=0.01, evaluate=20, checkpoint_minutes=1e-9)
        whole = make_net(recipe, data)
        expected = train(whole, data, recipe)
        with pytest.raises(Killed):
            train(make_net(recipe, data), data, recipe, run=Run.create(tmp_path, recipe), progress=kill_at(step))
        run, seen = Run.open(tmp_path), []
        net = make_net(recipe, data)
        history = train(net, data, recipe, run=run, progress=lambda p: seen.append(p.step))
        # Batch 5 ends an epoch: its checkpoint is made after the report.
        assert seen[0] == (step + 1 if step != 5 else 5)
        assert same_weights(net, whole)
        assert without_seconds(history) == without_seconds(expected)
        assert [Epoch(**entry) for entry in run.history()] == history
        files = sorted(p.name for p in tmp_path.iterdir() if p.suffix != ".lock")
        assert files == ["history.jsonl", "run.toml", "supernet.safetensors"]

    def test_networks_with_random_layers_resume_exactly_too(self, data: Data, tmp_path: Path, every_step: None) -> None:
        def fresh() -> Nested:
            torch.manual_seed(0)
            layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Dropout(0.5), nn.Linear(12, 3))
            return nest(layers, torch.zeros(2, *SHAPE), ("neuron",))

        recipe = make_recipe(checkpoint_minutes=1e-9)
        whole, net = fresh(), fresh()
        train(whole, data, recipe)
        with pytest.raises(Killed):
            train(net, data, recipe, run=Run.create(tmp_path, recipe), progress=kill_at(7))
        net = fresh()
        train(net, data, recipe, run=Run.open(tmp_path))
        assert same_weights(net, whole)

    def test_a_real_kill(self, data: Data, tmp_path: Path) -> None:
        recipe = make_recipe(epochs=400, checkpoint_minutes=1e-9)
        folder = tmp_path / "run"
        program = (
            "import torch; torch.set_num_threads(1)\n"
            "from tests.training.conftest import *\nfrom fn3hw.training import *\n"
            f"recipe = make_recipe(epochs=400, checkpoint_minutes=1e-9); data = make_data()\n"
            f"train(make_net(recipe, data), data, recipe, run=Run.create({str(folder)!r}, recipe))\n"
        )
        root = str(Path(__file__).parents[2])
        process = subprocess.Popen([sys.executable, "-c", program], cwd=root, env={**os.environ, "PYTHONPATH": root})
        deadline = time.monotonic() + 120
        while len(Run.open(folder).history() if (folder / "run.toml").exists() else ()) < 3:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        run = Run.open(folder)
        assert not run.is_trained
        done: list[Progress] = []
        with pytest.raises(Killed):
            train(make_net(recipe, data), data, recipe, run=run, progress=lambda p: (done.append(p), kill_at(0)(p)))
        # What was done before the kill is not done again, and every epoch is in the history once.
        assert done[0].epoch >= 3
        assert [entry["epoch"] for entry in run.history()] == list(range(done[0].epoch))

    def test_a_complete_run_is_loaded(self, data: Data, tmp_path: Path) -> None:
        recipe = make_recipe()
        net, again = make_net(recipe, data), make_net(recipe, data)
        history = train(net, data, recipe, run=Run.create(tmp_path, recipe))
        assert train(again, data, recipe, run=Run.open(tmp_path), progress=kill_at(0)) == history
        assert same_weights(net, again)

    def test_a_kill_between_weights_and_the_removal_of_the_checkpoint(
        self, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        recipe = make_recipe()
        with monkeypatch.context() as patch:
            patch.setattr(Run, "save_weights", lambda *_: (_ for _ in ()).throw(Killed()))
            with pytest.raises(Killed):
                train(make_net(recipe, data), data, recipe, run=Run.create(tmp_path, recipe))
        net, whole = make_net(recipe, data), make_net(recipe, data)
        train(net, data, recipe, run=Run.open(tmp_path), progress=kill_at(0))
        train(whole, data, recipe)
        assert same_weights(net, whole)


class TestBadCheckpoints:
    @pytest.fixture
    def run(self, data: Data, tmp_path: Path, every_step: None) -> Run:
        recipe = make_recipe()
        run = Run.create(tmp_path, recipe)
        with pytest.raises(Killed):
            train(make_net(recipe, data), data, recipe, run=run, progress=kill_at(7))
        return run

    @pytest.mark.parametrize("content", ["", "{", "[]", "3", '{"format": 1}', '{"format": "x"}'])
    def test_a_damaged_index_is_refused(self, data: Data, run: Run, content: str) -> None:
        (run.folder / "checkpoint.json").write_text(content)
        with pytest.raises(RunError):
            train(make_net(run.recipe, data), data, run.recipe, run=run)

    def test_a_newer_format_is_refused(self, data: Data, run: Run) -> None:
        path = run.folder / "checkpoint.json"
        path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
        with pytest.raises(RunError, match="reads up to 1"):
            train(make_net(run.recipe, data), data, run.recipe, run=run)

    def test_damaged_tensors_are_refused(self, data: Data, run: Run) -> None:
        (path,) = run.folder.glob("checkpoint-*.safetensors")
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        with pytest.raises(RunError, match="has changed"):
            train(make_net(run.recipe, data), data, run.recipe, run=run)
        path.unlink()
        with pytest.raises(RunError, match="damaged"):
            train(make_net(run.recipe, data), data, run.recipe, run=run)

    def test_a_checkpoint_of_other_settings_or_data_is_refused(self, data: Data, run: Run) -> None:
        other = run.recipe.replace(learning_rate=0.5)
        with pytest.raises(RunError, match="another recipe, network or data set"):
            train(make_net(other, data), data, other, run=run)
        more = make_data(200)
        with pytest.raises(RunError, match="another recipe, network or data set"):
            train(make_net(run.recipe, more), more, run.recipe, run=run)

    def test_a_full_disk_keeps_the_checkpoint_before(
        self, data: Data, tmp_path: Path, every_step: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        recipe = make_recipe(checkpoint_minutes=1e-9)
        whole, net = make_net(recipe, data), make_net(recipe, data)
        train(whole, data, recipe)
        real, written = os.fsync, []

        def fsync(handle: int) -> None:
            written.append(handle)
            if len(written) > 9:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real(handle)

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fsync)
            with pytest.raises(InputError, match="No space left") as caught:
                train(net, data, recipe, run=Run.create(tmp_path, recipe))
        assert caught.value.exit_status == 2 and not list(tmp_path.glob(".*.tmp"))
        seen: list[int] = []
        net = make_net(recipe, data)
        train(net, data, recipe, run=Run.open(tmp_path), progress=lambda p: seen.append(p.step))
        assert seen[0] > 1 and same_weights(net, whole)


class TestBadInput:
    def test_data_of_another_shape(self, data: Data) -> None:
        recipe = make_recipe()
        with pytest.raises(InputError, match="network takes"):
            train(make_net(recipe, data), make_data(shape=(3, 8, 8)), recipe)

    def test_data_of_other_classes(self, data: Data) -> None:
        recipe = make_recipe()
        with pytest.raises(InputError, match="4 classes, the network 3"):
            train(make_net(recipe, data), make_data(n_classes=4), recipe)

    def test_a_network_that_does_not_classify(self, data: Data) -> None:
        net = nest(nn.Sequential(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 3, 1)), torch.zeros(2, *SHAPE), ("channel",))
        with pytest.raises(InputError, match="not one logit per class"):
            train(net, data, make_recipe())

    def test_compiling_without_a_compiler(self, data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CXX", "no-such-compiler")
        recipe = make_recipe(compile=True)
        with pytest.raises(InputError, match="there is no no-such-compiler here"):
            train(make_net(recipe, data), data, recipe)

    def test_divergence_names_the_learning_rate_and_keeps_the_checkpoint(self, data: Data, tmp_path: Path) -> None:
        recipe = make_recipe(
            network={"name": "mlp", "options": {"hidden": [8]}, "levels": ["neuron"], "keep": {}},
            schedule="step",
            step_epochs=1,
            step_factor=1.0,
            learning_rate=1e18,
            warm_up=2.9,
            momentum=0.0,
            epochs=3,
        )
        run = Run.create(tmp_path, recipe)
        with pytest.raises(InputError, match=r"not finite.*learning rate") as caught:
            train(make_net(recipe, data), data, recipe, run=run)
        assert "learning_rate (now 1e+18)" in caught.value.hint and not run.is_trained

    def test_no_checkpoint_holds_a_number_that_is_not_finite(
        self, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        recipe = make_recipe(learning_rate=0.01)
        run = Run.create(tmp_path, recipe)
        net = make_net(recipe, data)

        def poison(p: Progress) -> None:
            if p.epoch == 1:
                next(net.parameters()).data.fill_(float("nan"))

        with pytest.raises(InputError, match="not finite in epoch 2"):
            train(net, data, recipe, run=run, progress=poison)
        resumed = make_net(recipe, data)
        history = train(resumed, data, recipe, run=run)
        assert len(history) == 3 and all(np.isfinite(e.loss) for e in history)


def test_packaged_digits_recipe_builds_its_network_and_data() -> None:
    from fn3hw.training import check_fits, recipe_data, recipe_network

    recipe = Recipe.load("digits")
    data = recipe_data(recipe)
    net = recipe_network(recipe, data)
    check_fits(net, data)
    assert set(net.space.levels) == {"channel", "layer"}
