from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import TensorDataset

from fn3hw.errors import InputError, UnknownName
from fn3hw.training import Augment, Data
from fn3hw.training.datasets import InMemory, Streamed, hold_out
from tests.training.conftest import make_data


def in_memory(images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> Data:
    ones = np.ones(images.shape[1], np.float32)
    split = InMemory(images, labels, mean=0 * ones, std=ones)
    return Data("m", dict.fromkeys(("train", "search", "test"), split), n_classes=4, input_shape=images.shape[1:])


def streamed(images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> Data:
    split = Streamed(TensorDataset(torch.from_numpy(images), torch.from_numpy(labels)))
    return Data("s", dict.fromkeys(("train", "search", "test"), split), n_classes=4, input_shape=images.shape[1:])


@pytest.fixture(params=[in_memory, streamed])
def numbered(request: pytest.FixtureRequest) -> Data:
    """22 images; the pixels of each are its number."""
    images = np.arange(22, dtype=np.float32)[:, None, None, None] * np.ones((1, 2, 3, 3), np.float32)
    return request.param(images, np.arange(22) % 4)  # type: ignore[no-any-return]


class TestEverySplit:
    """What in-memory and streamed splits have in common."""

    def test_batches_give_every_image_once_in_order(self, numbered: Data) -> None:
        batches = list(numbered.batches("test", 8))
        assert [len(y) for _, y in batches] == [8, 8, 6]
        assert torch.cat([x[:, 0, 0, 0] for x, _ in batches]).tolist() == list(range(22))
        assert all(x.dtype == torch.float32 and y.dtype == torch.int64 for x, y in batches)

    def test_training_batches_are_whole_and_shuffled_anew_every_epoch(self, numbered: Data) -> None:
        epochs = [torch.cat([x[:, 0, 0, 0] for x, _ in numbered.training_batches(8, seed=1, epoch=e)]) for e in (0, 1)]
        for order in epochs:
            assert len(order) == 16 == len(set(order.tolist()))
        assert epochs[0].tolist() != epochs[1].tolist()
        assert numbered.steps_per_epoch(8) == 2

    def test_labels_stay_with_their_images(self, numbered: Data) -> None:
        for x, y in numbered.training_batches(4, seed=3, epoch=0, augment=Augment(1, flip=True)):
            assert (x[:, 0, 1, 1].long() % 4).tolist() == y.tolist()

    @pytest.mark.parametrize("start", [0, 1, 4])
    def test_a_batch_does_not_depend_on_those_before_it(self, numbered: Data, start: int) -> None:
        augment = Augment(1, flip=True)
        whole = list(numbered.training_batches(4, seed=5, epoch=2, augment=augment))
        part = list(numbered.training_batches(4, seed=5, epoch=2, augment=augment, start=start))
        assert len(part) == len(whole) - start
        assert all(torch.equal(a, b) and torch.equal(i, j) for (a, i), (b, j) in zip(whole[start:], part, strict=True))

    def test_a_training_set_below_the_batch_size_is_one_batch(self, numbered: Data) -> None:
        assert [len(y) for _, y in numbered.training_batches(50, seed=0, epoch=0)] == [22] and numbered.steps_per_epoch(
            50
        ) == 1

    def test_reading_leaves_torchs_random_numbers_alone(self, numbered: Data) -> None:
        before = torch.get_rng_state()
        list(numbered.training_batches(4, seed=0, epoch=0, augment=Augment(1)))
        assert torch.equal(before, torch.get_rng_state())

    def test_arrays_are_the_first_images(self, numbered: Data) -> None:
        images, labels = numbered.arrays("search", 5)
        assert images.shape == (5, 2, 3, 3) and images.dtype == np.float32 and labels.dtype == np.int64
        assert images[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]
        assert len(numbered.arrays("search")[0]) == 22 == len(numbered.arrays("search", 100)[0])

    def test_an_unknown_split_names_the_nearest(self, numbered: Data) -> None:
        with pytest.raises(UnknownName, match="'train'"):
            numbered.arrays("training")

    def test_a_label_beyond_the_classes_is_an_error(self, numbered: Data) -> None:
        numbered.n_classes = 3
        with pytest.raises(InputError, match="label 3, but its 3 classes"):
            list(numbered.training_batches(8, seed=0, epoch=0))


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2), st.booleans(), st.integers(0, 1000))
def test_augmentation_shifts_and_mirrors_each_image_as_a_whole(shift: int, flip: bool, seed: int) -> None:
    x = torch.arange(3 * 2 * 5 * 4, dtype=torch.float32).reshape(3, 2, 5, 4)
    moved = Augment(shift, flip).apply(x, np.random.default_rng(seed))
    assert moved.shape == x.shape
    for before, after in zip(x, moved, strict=True):
        # Every image equals one of the allowed changes, channels moving together.
        candidates = [before, before.flip(2)] if flip else [before]
        allowed = []
        for image in candidates:
            padded = torch.nn.functional.pad(image[None], (shift,) * 4, mode="replicate")[0]
            allowed += [padded[:, i : i + 5, j : j + 4] for i in range(2 * shift + 1) for j in range(2 * shift + 1)]
        assert any(torch.equal(after, one) for one in allowed)


def test_augmentation_differs_between_images_and_reaches_every_position() -> None:
    x = torch.zeros(400, 1, 5, 5)
    x[:, :, 2, 2] = 1.0
    moved = Augment(1).apply(x, np.random.default_rng(0))
    places = moved.sum(0)[0, 1:4, 1:4]
    assert (places > 20).all() and places.sum() == 400


@settings(deadline=None)
@given(st.integers(2, 200), st.data())
def test_what_is_held_out_is_not_trained_on(size: int, draw: st.DataObject) -> None:
    search, seed = draw.draw(st.integers(1, size - 1)), draw.draw(st.integers(0, 99))
    held, rest = hold_out(size, search, seed)
    assert sorted([*held, *rest]) == list(range(size)) and len(held) == search
    again, _ = hold_out(size, search, seed)
    assert held.tolist() == again.tolist()


@pytest.mark.parametrize("search", [0, 10, 11])
def test_holding_out_all_or_nothing_is_refused(search: int) -> None:
    with pytest.raises(InputError, match="Cannot hold"):
        hold_out(10, search, 0)


def test_other_shape_or_classes_than_the_network_are_refused() -> None:
    data = make_data()
    data.check_fits(n_classes=3, input_shape=(1, 8, 8))
    with pytest.raises(InputError, match=r"inputs of shape \(1, 8, 8\), the network takes \(3, 32, 32\)"):
        data.check_fits(n_classes=3, input_shape=(3, 32, 32))
    with pytest.raises(InputError, match="3 classes, the network 10"):
        data.check_fits(n_classes=10, input_shape=(1, 8, 8))


class TestFromDatasets:
    @settings(deadline=None, max_examples=20)
    @given(st.integers(5, 40), st.integers(1, 4))
    def test_splits_cover_the_training_set(self, size: int, search: int) -> None:
        train = TensorDataset(torch.arange(size).float().view(size, 1, 1, 1), torch.zeros(size).long())
        data = Data.from_datasets(train, train, n_classes=2, search=search)
        seen = [data.arrays(split)[0].ravel().tolist() for split in ("train", "search")]
        assert sorted([*seen[0], *seen[1]]) == list(range(size)) and len(seen[1]) == search
        assert data.input_shape == (1, 1, 1)

    def test_items_that_are_no_tensor_and_label_are_refused(self) -> None:
        with pytest.raises(InputError, match=r"must be \(image tensor, label\)"):
            Data.from_datasets([("image", 0)] * 9, [("image", 0)], n_classes=2, search=2)

    def test_images_of_several_shapes_are_refused(self) -> None:
        mixed: Any = [(torch.zeros(1, 2, 2), 0)] * 8 + [(torch.zeros(1, 3, 3), 0)]
        data = Data.from_datasets(mixed, mixed, n_classes=2, search=2)
        with pytest.raises(InputError, match="of one shape"):
            data.arrays("test")
        with pytest.raises(InputError, match="test images"):
            Data.from_datasets(mixed, mixed[::-1], n_classes=2, search=2)

    def test_the_number_of_classes_must_be_known(self) -> None:
        items: Any = [(torch.zeros(1, 2, 2), 0)] * 9
        with pytest.raises(InputError, match="how many classes"):
            Data.from_datasets(items, items, search=2)

    def test_an_empty_set_is_refused(self) -> None:
        items: Any = [(torch.zeros(1, 2, 2), 0)] * 9
        with pytest.raises(InputError):
            Data.from_datasets(items, [], n_classes=2, search=2)
        with pytest.raises(InputError, match="Cannot hold"):
            Data.from_datasets([], items, n_classes=2, search=2)
