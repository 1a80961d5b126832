"""Data sets by name: digits, MNIST, Fashion-MNIST, CIFAR, image folders. Nothing is downloaded, no pickle is read."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fn3hw.errors import InputError, UnknownName
from fn3hw.training.datasets import Data, InMemory, Labels, hold_out

Images = NDArray[np.uint8]

PLACES = {
    "mnist": (Path("data/mnist"), Path("data/MNIST/raw")),
    "fashion-mnist": (
        *(Path("/usr/share/datasets/fashion-mnist"), Path("data/fashion-mnist"), Path("data/FashionMNIST/raw")),
    ),
}
"""Where Debian's package puts the files, and where one's own copy or torchvision's would lie."""


def load_data(name: str, root: str | Path | None = None, *, search: int = 2000, seed: int = 0) -> Data:
    """Load a data set by name.

    Args:
        name: one of `names()`.
        root: folder of its files; the default is where each data set is usually found.
        search: number of training images held out to choose subnets on.
        seed: of that choice.

    Raises:
        UnknownName: no data set of that name.
        InputError: files are missing or damaged; the hint says how to get them.
    """
    if name not in _LOADERS:
        raise UnknownName("data set", name, _LOADERS)
    return _LOADERS[name](Path(root) if root is not None else None, search, seed)


def names() -> list[str]:
    """The data sets that `load_data` knows."""
    return list(_LOADERS)


def _digits(root: Path | None, search: int, seed: int) -> Data:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = (bunch.images * 15.9375).astype(np.uint8)[:, None]
    order = np.random.default_rng(0).permutation(len(images))
    images, labels = images[order], bunch.target.astype(np.int64)[order]
    return _in_memory("digits", (images[:1437], labels[:1437]), (images[1437:], labels[1437:]), min(search, 240), seed)


def _idx(name: str, hint: str) -> Callable[[Path | None, int, int], Data]:
    """MNIST and data sets in its format: four gzip files."""

    def load(root: Path | None, search: int, seed: int) -> Data:
        folder = root or next((p for p in PLACES[name] if p.is_dir()), PLACES[name][0])
        parts = [_idx_pair(folder, prefix, hint) for prefix in ("train", "t10k")]
        return _in_memory(name, parts[0], parts[1], search, seed)

    return load


def _idx_pair(folder: Path, prefix: str, hint: str) -> tuple[Images, Labels]:
    images = _read_idx(folder / f"{prefix}-images-idx3-ubyte.gz", hint)
    labels = _read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", hint)
    if images.ndim != 3 or labels.shape != images.shape[:1] or not len(images):
        raise InputError(f"{folder}: the {prefix} images and labels do not belong together.", hint=hint)
    return images[:, None], labels.astype(np.int64)


def _read_idx(path: Path, hint: str) -> Images:
    """An array in the IDX format of MNIST: two zero bytes, the type, the rank, big-endian sizes, the values."""
    try:
        data = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read: {error}.", hint=hint) from error
    rank = data[3] if len(data) > 3 else 0
    shape = np.frombuffer(data, ">u4", rank, 4) if len(data) >= 4 + 4 * rank else np.array([], dtype=">u4")
    values = np.frombuffer(data, np.uint8, offset=min(len(data), 4 + 4 * rank))
    if data[:3] != b"\0\0\x08" or not rank or values.size != int(np.prod(shape.astype(np.int64))):
        raise InputError(f"{path} is not an IDX file of bytes, or is cut short.", hint=hint)
    return values.reshape(tuple(int(n) for n in shape)).copy()


def _cifar(classes: int) -> Callable[[Path | None, int, int], Data]:
    """CIFAR's binary version: per image one label byte (CIFAR-100: coarse, then fine), then 3072 bytes of pixels."""

    def load(root: Path | None, search: int, seed: int) -> Data:
        if classes == 10:
            inner, train_files, test_files = (
                "cifar-10-batches-bin",
                [f"data_batch_{i}.bin" for i in range(1, 6)],
                ["test_batch.bin"],
            )
        else:
            inner, train_files, test_files = "cifar-100-binary", ["train.bin"], ["test.bin"]
        folder = root or Path("data")
        folder = folder / inner if (folder / inner).is_dir() else folder
        train, test = (_read_cifar([folder / name for name in files], classes) for files in (train_files, test_files))
        return _in_memory(f"cifar{classes}", train, test, search, seed, n_classes=classes)

    return load


def _read_cifar(paths: list[Path], classes: int) -> tuple[Images, Labels]:
    label_bytes = 1 if classes == 10 else 2
    records, size = [], label_bytes + 3072
    hint = "Unpack the binary version of CIFAR (the Python version is pickled) and give its folder as data.root."
    for path in paths:
        try:
            data = np.frombuffer(path.read_bytes(), np.uint8)
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error}.", hint=hint) from error
        if not len(data) or len(data) % size:
            raise InputError(
                f"{path} has {len(data)} bytes, not a multiple of {size}: cut short, or another format.", hint=hint
            )
        records.append(data.reshape(-1, size))
    table = np.concatenate(records)
    return table[:, label_bytes:].reshape(-1, 3, 32, 32).copy(), table[:, label_bytes - 1].astype(np.int64)


def _folder(root: Path | None, search: int, seed: int) -> Data:
    """Images in ``root/train/CLASS/`` and ``root/val/CLASS/``, resized to 256 and cropped to 224, as for ImageNet.

    Training images are cropped at random, so a training that is resumed within an epoch differs in the crops.
    """
    from torchvision import datasets, transforms

    if root is None or not (root / "train").is_dir() or not (root / "val").is_dir():
        place = root if root is not None else "The data set 'folder' without data.root"
        raise InputError(
            f"{place} has no folders train/ and val/ with one folder of images per class.", hint="Set data.root."
        )
    normalise = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    view = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(), normalise])
    random_view = transforms.Compose([transforms.RandomResizedCrop(224), transforms.ToTensor(), normalise])
    try:
        plain, varied = (datasets.ImageFolder(str(root / "train"), t) for t in (view, random_view))
        test = datasets.ImageFolder(str(root / "val"), view)
    except (OSError, RuntimeError) as error:
        raise InputError(f"{root}: {error}") from error
    if plain.classes != test.classes:
        differing = sorted(set(plain.classes) ^ set(test.classes))
        raise InputError(f"{root}: train/ and val/ have different classes: {', '.join(differing[:5])}.")
    workers = min(8, os.cpu_count() or 1) if len(plain) > 1000 else 0
    return Data.from_datasets(varied, test, search=search, name="folder", seed=seed, unchanged=plain, workers=workers)


_LOADERS: dict[str, Callable[[Path | None, int, int], Data]] = {
    "digits": _digits,
    "mnist": _idx("mnist", "Give the folder of its four .gz files as data.root."),
    "fashion-mnist": _idx(
        "fashion-mnist",
        "Install it (apt-get install dataset-fashion-mnist) or give the folder of its four .gz files as data.root.",
    ),
    "cifar10": _cifar(10),
    "cifar100": _cifar(100),
    "folder": _folder,
}


def _in_memory(
    name: str, train: tuple[Images, Labels], test: tuple[Images, Labels], search: int, seed: int, *, n_classes: int = 10
) -> Data:
    (images, labels), (test_images, _) = train, test
    if test_images.shape[1:] != images.shape[1:]:
        raise InputError(f"Data set {name}: training and test images differ in shape.")
    held, rest = hold_out(len(images), search, seed)
    mean = images[rest].mean(axis=(0, 2, 3), dtype=np.float64).astype(np.float32)
    std = images[rest].std(axis=(0, 2, 3), dtype=np.float64).astype(np.float32)
    std[std == 0] = 1.0
    parts = {"train": (images[rest], labels[rest]), "search": (images[held], labels[held]), "test": test}
    splits = {key: InMemory(x, y, mean=mean, std=std) for key, (x, y) in parts.items()}
    return Data(name, splits, n_classes=n_classes, input_shape=tuple(images.shape[1:]))
