from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

from fn3hw.errors import InputError
from fn3hw.training import Data, load_data
from fn3hw.training.datasets import Augment, InMemory

RNG = np.random.default_rng(0)


def test_digits_have_three_disjoint_splits() -> None:
    data = load_data("digits")
    sizes = {name: len(split) for name, split in data.splits.items()}
    assert sizes == {"train": 1197, "search": 240, "test": 360}
    assert data.input_shape == (1, 8, 8) and data.n_classes == 10
    images, _ = data.arrays("train")
    assert abs(images.mean()) < 1e-3 and abs(images.std() - 1) < 1e-3
    again = load_data("digits").arrays("search")
    assert all(np.array_equal(a, b) for a, b in zip(again, data.arrays("search"), strict=True))
    train, search = (data.arrays(name)[0].reshape(-1, 64) for name in ("train", "search"))
    shared = {row.tobytes() for row in train} & {row.tobytes() for row in search}
    assert len(shared) <= 1


def test_arrays_are_limited() -> None:
    data = load_data("digits")
    images, labels = data.arrays("test", 17)
    assert images.shape == (17, 1, 8, 8) and labels.shape == (17,)
    assert np.array_equal(images, data.arrays("test")[0][:17])


def write_idx(path: Path, array: np.ndarray) -> None:
    header = b"\0\0\x08" + bytes([array.ndim]) + np.array(array.shape, dtype=">u4").tobytes()
    path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes()))


def write_fashion(folder: Path) -> np.ndarray:
    images = RNG.integers(0, 256, (60, 28, 28), dtype=np.uint8)
    for prefix, part in (("train", images), ("t10k", images[:10])):
        write_idx(folder / f"{prefix}-images-idx3-ubyte.gz", part)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", np.arange(len(part)) % 10)
    return images


def test_idx_files_are_read(tmp_path: Path) -> None:
    images = write_fashion(tmp_path)
    data = load_data("fashion-mnist", tmp_path, search=20)
    split = data.split("test")
    assert isinstance(split, InMemory)
    assert np.array_equal(split.images.numpy()[:, 0], images[:10])
    assert split.labels.tolist() == list(range(10))


def test_damaged_idx_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        load_data("fashion-mnist", tmp_path)
    write_fashion(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    whole = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(whole[:-5]))
    with pytest.raises(InputError, match="cut short"):
        load_data("fashion-mnist", tmp_path)
    path.write_bytes(gzip.compress(whole)[:-40])
    with pytest.raises(InputError, match="cannot be read"):
        load_data("fashion-mnist", tmp_path)


@pytest.mark.parametrize("classes", [10, 100])
def test_cifar_binaries_are_read(tmp_path: Path, classes: int) -> None:
    n, label_bytes = 20, 1 if classes == 10 else 2
    records = RNG.integers(0, 256, (n, label_bytes + 3072), dtype=np.uint8)
    records[:, label_bytes - 1] = np.arange(n) % classes
    train = [f"data_batch_{i}.bin" for i in range(1, 6)] if classes == 10 else ["train.bin"]
    for name in [*train, "test_batch.bin" if classes == 10 else "test.bin"]:
        (tmp_path / name).write_bytes(records.tobytes())
    data = load_data(f"cifar{classes}", tmp_path, search=5)
    split = data.split("test")
    assert isinstance(split, InMemory) and data.n_classes == classes and data.input_shape == (3, 32, 32)
    assert np.array_equal(split.images.numpy().reshape(n, -1), records[:, label_bytes:])
    assert split.labels.tolist() == [i % classes for i in range(n)]
    (tmp_path / train[0]).write_bytes(records.tobytes()[:-7])
    with pytest.raises(InputError, match="not a multiple"):
        load_data(f"cifar{classes}", tmp_path)


def test_an_image_folder_is_read(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for label in ("cat", "dog"):
            (tmp_path / split / label).mkdir(parents=True)
            for index in range(3):
                picture = RNG.integers(0, 256, (40, 50, 3), dtype=np.uint8)
                Image.fromarray(picture).save(tmp_path / split / label / f"{index}.png")
    data = load_data("folder", tmp_path, search=2)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 4, "search": 2, "test": 6}
    images, labels = data.arrays("test")
    assert images.shape == (6, 3, 224, 224) and labels.tolist() == [0, 0, 0, 1, 1, 1]
    with pytest.raises(InputError, match="no folders train/ and val/"):
        load_data("folder", tmp_path / "train")


def test_any_torch_data_set_can_be_used() -> None:
    dataset = TensorDataset(torch.randn(30, 4), torch.arange(30) % 3)
    data = Data.from_datasets(dataset, dataset, n_classes=3, search=10)
    assert data.input_shape == (4,) and len(data.split("train")) == 20
    batches = list(data.split("train").batches(8, generator=torch.Generator(), augment=Augment()))
    assert [tuple(x.shape) for x, _ in batches] == [(8, 4), (8, 4)]
    with pytest.raises(InputError, match="Cannot hold 30 images out of 30"):
        Data.from_datasets(dataset, dataset, n_classes=3, search=30)


def test_data_that_do_not_fit_a_network_are_refused() -> None:
    data = load_data("digits")
    with pytest.raises(InputError, match="10 classes, the network 5"):
        data.check_fits(n_classes=5, input_shape=(1, 8, 8))
    with pytest.raises(InputError, match=r"shape \(1, 8, 8\), the network takes \(1, 28, 28\)"):
        data.check_fits(n_classes=10, input_shape=(1, 28, 28))


@pytest.mark.parametrize("augment", [Augment(shift=2), Augment(flip=True), Augment(shift=1, flip=True)])
def test_augmentation_only_moves_pixels(augment: Augment) -> None:
    images = np.tile(np.arange(36, dtype=np.float32).reshape(1, 1, 6, 6), (16, 1, 1, 1))
    zero, one = np.zeros(1, np.float32), np.ones(1, np.float32)
    split = InMemory(images, np.arange(16), mean=zero, std=one)
    ((x, y),) = split.batches(16, generator=torch.Generator().manual_seed(0), augment=augment)
    assert sorted(y.tolist()) == list(range(16)) and x.shape == (16, 1, 6, 6)
    assert not torch.equal(x, torch.from_numpy(images))
    steps = (x[:, 0, :, 1:] - x[:, 0, :, :-1]).abs()
    assert set(steps.unique().tolist()) <= {0.0, 1.0}
