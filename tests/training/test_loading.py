from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fn3hw.errors import InputError, UnknownName
from fn3hw.training import Data, load_data, loading

rng = np.random.default_rng(0)


def idx(array: np.ndarray[Any, Any]) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return gzip.compress(bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes())


def make_fashion_mnist(folder: Path) -> np.ndarray[Any, Any]:
    images = rng.integers(0, 256, (40, 28, 28), dtype=np.uint8)
    for part, count in {"train": 40, "t10k": 12}.items():
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(idx(images[:count]))
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(idx(np.arange(count) % 10))
    return images


def make_cifar(folder: Path, classes: int) -> None:
    inner = folder / ("cifar-10-batches-bin" if classes == 10 else "cifar-100-binary")
    inner.mkdir()
    files = (
        ["test_batch.bin", *(f"data_batch_{i}.bin" for i in range(1, 6))]
        if classes == 10
        else ["train.bin", "test.bin"]
    )
    for name in files:
        labels = np.arange(20, dtype=np.uint8)[:, None] * (classes // 20 or 1) % classes
        coarse = [] if classes == 10 else [np.full((20, 1), 255, np.uint8)]
        pixels = np.repeat(np.array([[10, 20, 30]], np.uint8), 1024, axis=1).repeat(20, axis=0) + labels
        (inner / name).write_bytes(np.hstack([*coarse, labels, pixels]).tobytes())


def make_folder(root: Path, classes: dict[str, int]) -> None:
    for part in ("train", "val"):
        for name, count in classes.items():
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{number}.png")


def test_digits() -> None:
    data = load_data("digits")
    assert data.input_shape == (1, 8, 8) and data.n_classes == 10
    assert [len(data.split(s)) for s in ("train", "search", "test")] == [1197, 240, 360]
    images, labels = data.arrays("train")
    assert abs(images.mean()) < 1e-3 and abs(images.std() - 1) < 1e-3
    assert set(labels) == set(range(10)) == set(data.arrays("search")[1])


def test_digits_splits_share_no_image_by_position() -> None:
    first, second = (load_data("digits", seed=1), load_data("digits", seed=1))
    assert np.array_equal(first.arrays("search")[0], second.arrays("search")[0])
    assert not np.array_equal(first.arrays("search")[0], load_data("digits", seed=2).arrays("search")[0])


def test_fashion_mnist_reads_idx_files(tmp_path: Path) -> None:
    images = make_fashion_mnist(tmp_path)
    data = load_data("fashion-mnist", tmp_path, search=5)
    assert data.input_shape == (1, 28, 28) and [len(data.split(s)) for s in ("train", "search", "test")] == [35, 5, 12]
    x, y = data.arrays("test")
    assert y.tolist() == [*range(10), 0, 1]
    # Normalised, but otherwise the images of the file.
    flat = images[:12].reshape(-1).astype(float)
    assert np.corrcoef(flat, x.reshape(-1))[0, 1] == pytest.approx(1.0)


def test_fashion_mnist_is_found_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data/fashion-mnist").mkdir(parents=True)
    make_fashion_mnist(tmp_path / "data/fashion-mnist")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(loading.PLACES, "fashion-mnist", (tmp_path / "nowhere", *loading.PLACES["fashion-mnist"][1:]))
    assert len(load_data("fashion-mnist", search=5).split("test")) == 12


def test_missing_fashion_mnist_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="apt-get install dataset-fashion-mnist"):
        load_data("fashion-mnist", tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: gzip.compress(gzip.decompress(data)[:-9]),
        lambda data: gzip.compress(b"\0\0\x0d" + gzip.decompress(data)[3:]),
        lambda data: gzip.decompress(data),
        lambda data: gzip.compress(b""),
        lambda data: data[:200] + bytes(64) + data[264:],
        lambda data: idx(np.zeros((39, 28, 28))),
    ],
    ids=["cut gzip", "cut values", "floats", "not gzipped", "empty", "overwritten", "one image less"],
)
def test_damaged_idx_files_are_refused(tmp_path: Path, damage: Any) -> None:
    make_fashion_mnist(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError):
        load_data("fashion-mnist", tmp_path, search=5)


@pytest.mark.parametrize(("name", "classes", "train"), [("cifar10", 10, 100), ("cifar100", 100, 20)])
@pytest.mark.parametrize("inner", [False, True])
def test_cifar_reads_the_binary_version(tmp_path: Path, name: str, classes: int, train: int, inner: bool) -> None:
    make_cifar(tmp_path, classes)
    data = load_data(name, next(tmp_path.iterdir()) if inner else tmp_path, search=4)
    assert data.n_classes == classes and data.input_shape == (3, 32, 32) and len(data.split("train")) == train - 4
    split = data.split("test")
    # Every pixel is its channel's base plus the label: so red comes first, and the fine label is the one that is read.
    raw = split.images.double().mean((2, 3)) - split.labels[:, None]  # type: ignore[attr-defined]
    assert np.allclose(raw, [[10, 20, 30]])


def test_cut_or_missing_cifar_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="binary version"):
        load_data("cifar10", tmp_path)
    make_cifar(tmp_path, 10)
    path = tmp_path / "cifar-10-batches-bin/data_batch_3.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match="not a multiple of 3073"):
        load_data("cifar10", tmp_path)


def test_image_folder(tmp_path: Path) -> None:
    make_folder(tmp_path, {"cat": 3, "dog": 2})
    data = load_data("folder", tmp_path, search=2)
    assert data.input_shape == (3, 224, 224) and data.n_classes == 2
    assert [len(data.split(s)) for s in ("train", "search", "test")] == [3, 2, 5]
    images, labels = data.arrays("test")
    assert images.shape == (5, 3, 224, 224) and sorted(labels) == [0, 0, 0, 1, 1]
    again, _ = data.arrays("search")
    assert np.array_equal(again, data.arrays("search")[0])


def test_image_folders_with_other_classes_or_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train/ and val/"):
        load_data("folder", tmp_path)
    with pytest.raises(InputError, match=r"data.root"):
        load_data("folder")
    make_folder(tmp_path, {"cat": 2})
    (tmp_path / "val/bird").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "val/bird/a.png")
    with pytest.raises(InputError, match="different classes: bird"):
        load_data("folder", tmp_path, search=1)


def test_an_unknown_name_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match="'fashion-mnist'") as caught:
        load_data("fashionmnist")
    assert caught.value.exit_status == 2


def test_the_installed_fashion_mnist() -> None:
    if not loading.PLACES["fashion-mnist"][0].is_dir():
        pytest.skip("dataset-fashion-mnist is not installed")
    data: Data = load_data("fashion-mnist", search=4000)
    assert [len(data.split(s)) for s in ("train", "search", "test")] == [56000, 4000, 10000]
    assert np.bincount(data.arrays("test")[1]).tolist() == [1000] * 10
