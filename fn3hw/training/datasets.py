"""Data sets: small ones whole in memory, large ones through torch's loaders, all with the same three splits.

``train`` is trained on, ``search`` is held out of the training set to choose subnets on, ``test`` is only reported.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Subset

from fn3hw.errors import InputError, UnknownName

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]
Batch = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Augment:
    """Random changes of training images: translation by up to ``shift`` pixels, mirroring where ``flip``."""

    shift: int = 0
    flip: bool = False


class InMemory:
    """A split held as one array.

    Args:
        images: (N, C, H, W), 8-bit or float.
        labels: (N,).
        mean: per channel, in the images' own scale.
        std: likewise.
    """

    def __init__(
        self, images: NDArray[Any], labels: Labels, *, mean: NDArray[np.float32], std: NDArray[np.float32]
    ) -> None:
        self.images, self.labels = torch.tensor(images), torch.tensor(labels)
        self.mean = torch.from_numpy(mean).reshape(1, -1, 1, 1)
        self.std = torch.from_numpy(std).reshape(1, -1, 1, 1)

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: torch.Tensor) -> Batch:
        """Normalised images and labels at ``index``."""
        return (self.images[index].float() - self.mean) / self.std, self.labels[index]

    def batches(self, batch_size: int, *, generator: torch.Generator | None, augment: Augment) -> Iterator[Batch]:
        """Batches in random order with whole batches only, or in order and complete without a generator."""
        n = len(self)
        if generator is None:
            yield from (self.take(torch.arange(i, min(i + batch_size, n))) for i in range(0, n, batch_size))
            return
        order = torch.randperm(n, generator=generator)
        for start in range(0, n - batch_size + 1, batch_size):
            x, y = self.take(order[start : start + batch_size])
            yield _augmented(x, augment, generator), y


class Streamed:
    """A split read through a torch `Dataset` of (image tensor, label)."""

    def __init__(self, dataset: Dataset[Any], *, workers: int = 0) -> None:
        self.dataset, self.workers = dataset, workers

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def batches(self, batch_size: int, *, generator: torch.Generator | None, augment: Augment) -> Iterator[Batch]:
        """As `InMemory.batches`."""
        shuffle = generator is not None
        loader = DataLoader(
            self.dataset, batch_size, shuffle=shuffle, drop_last=shuffle, generator=generator, num_workers=self.workers
        )
        for x, y in loader:
            yield (_augmented(x, augment, generator) if generator else x), torch.as_tensor(y, dtype=torch.int64)


class Data:
    """A data set with its splits.

    Args:
        name: what it is called in a recipe.
        splits: ``train``, ``search`` and ``test``.
        n_classes: number of classes.
        input_shape: (C, H, W) of one image, or the shape of one feature vector.
    """

    def __init__(
        self, name: str, splits: dict[str, InMemory | Streamed], *, n_classes: int, input_shape: tuple[int, ...]
    ) -> None:
        self.name, self.splits, self.n_classes, self.input_shape = name, splits, n_classes, input_shape

    @classmethod
    def from_datasets(
        cls,
        train: Dataset[Any],
        test: Dataset[Any],
        *,
        n_classes: int,
        search: int = 2000,
        name: str = "own",
        seed: int = 0,
    ) -> Data:
        """Any torch data sets of (normalised image tensor, label); ``search`` images of ``train`` are held out.

        Raises:
            InputError: ``train`` has too few images.
        """
        size = len(train)  # type: ignore[arg-type]
        held, rest = _hold_out(size, search, seed)
        shape = tuple(torch.as_tensor(train[0][0]).shape)
        splits: dict[str, InMemory | Streamed] = {
            "train": Streamed(Subset(train, rest.tolist())),
            "search": Streamed(Subset(train, held.tolist())),
            "test": Streamed(test),
        }
        return cls(name, splits, n_classes=n_classes, input_shape=shape)

    def split(self, name: str) -> InMemory | Streamed:
        """A split by name."""
        if name not in self.splits:
            raise UnknownName("split", name, self.splits)
        return self.splits[name]

    def arrays(self, split: str, limit: int | None = None) -> tuple[NDArray[np.float32], Labels]:
        """The first ``limit`` normalised images (N, C, H, W) and labels (N,) of a split."""
        images, labels, count = [], [], 0
        for x, y in self.split(split).batches(min(limit or 1024, 1024), generator=None, augment=Augment()):
            images.append(x.numpy())
            labels.append(y.numpy())
            count += len(y)
            if limit is not None and count >= limit:
                break
        return np.concatenate(images)[:limit].astype(np.float32), np.concatenate(labels)[:limit]

    def check_fits(self, *, n_classes: int, input_shape: tuple[int, ...]) -> None:
        """Raise `InputError` unless a network with this input and output can be used on the data."""
        if self.input_shape != tuple(input_shape):
            raise InputError(
                f"Data set {self.name} has inputs of shape {self.input_shape}, the network takes {input_shape}."
            )
        if self.n_classes != n_classes:
            raise InputError(f"Data set {self.name} has {self.n_classes} classes, the network {n_classes}.")


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


def _fashion_mnist(root: Path | None, search: int, seed: int) -> Data:
    folder = root or next(
        (p for p in (Path("/usr/share/datasets/fashion-mnist"), Path("data/fashion-mnist")) if p.is_dir()),
        Path("data/fashion-mnist"),
    )
    parts = [_idx_pair(folder, prefix) for prefix in ("train", "t10k")]
    return _in_memory("fashion-mnist", parts[0], parts[1], search, seed)


def _idx_pair(folder: Path, prefix: str) -> tuple[Images, Labels]:
    hint = "Install it (apt-get install dataset-fashion-mnist) or give the folder of its four .gz files as data.root."
    images = _read_idx(folder / f"{prefix}-images-idx3-ubyte.gz", hint)
    labels = _read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", hint)
    if images.ndim != 3 or len(images) != len(labels):
        raise InputError(f"{folder}: the {prefix} images and labels do not belong together.", hint=hint)
    return images[:, None], labels.astype(np.int64)


def _read_idx(path: Path, hint: str) -> NDArray[np.uint8]:
    """An array in the IDX format of MNIST: two zero bytes, the type, the rank, big-endian sizes, the values."""
    try:
        data = gzip.decompress(path.read_bytes())
    except (OSError, EOFError) as error:
        raise InputError(f"{path} cannot be read: {error}.", hint=hint) from error
    rank = data[3] if len(data) > 3 else 0
    shape = np.frombuffer(data, ">u4", rank, 4) if len(data) >= 4 + 4 * rank else np.array([], dtype=">u4")
    values = np.frombuffer(data, np.uint8, offset=min(len(data), 4 + 4 * rank))
    if data[:3] != b"\0\0\x08" or values.size != int(np.prod(shape.astype(np.int64))):
        raise InputError(f"{path} is not an IDX file of bytes, or is cut short.", hint=hint)
    return values.reshape(tuple(int(n) for n in shape))


def _cifar(classes: int) -> Callable[[Path | None, int, int], Data]:
    """CIFAR's binary version: per image one label byte (CIFAR-100: coarse, then fine), then 3072 bytes of pixels."""

    def load(root: Path | None, search: int, seed: int) -> Data:
        if classes == 10:
            folder = root or Path("data/cifar-10-batches-bin")
            train_files, test_files = [f"data_batch_{i}.bin" for i in range(1, 6)], ["test_batch.bin"]
        else:
            folder, train_files, test_files = root or Path("data/cifar-100-binary"), ["train.bin"], ["test.bin"]
        label_bytes = 1 if classes == 10 else 2
        train = _read_cifar([folder / name for name in train_files], label_bytes)
        test = _read_cifar([folder / name for name in test_files], label_bytes)
        return _in_memory(f"cifar{classes}", train, test, search, seed, n_classes=classes)

    return load


def _read_cifar(paths: list[Path], label_bytes: int) -> tuple[Images, Labels]:
    records, size = [], label_bytes + 3072
    for path in paths:
        hint = "Unpack the binary version of CIFAR and give its folder as data.root."
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
    """Images in ``root/train/CLASS/`` and ``root/val/CLASS/``, resized to 256 and cropped to 224, as for ImageNet."""
    from torchvision import datasets, transforms

    if root is None or not (root / "train").is_dir() or not (root / "val").is_dir():
        raise InputError(
            f"{root} has no folders train/ and val/ with one folder of images per class.", hint="Set data.root."
        )
    normalise = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    view = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(), normalise])
    random_view = transforms.Compose([transforms.RandomResizedCrop(224), transforms.ToTensor(), normalise])
    try:
        plain, varied = (datasets.ImageFolder(str(root / "train"), t) for t in (view, random_view))
        test = datasets.ImageFolder(str(root / "val"), view)
    except (FileNotFoundError, RuntimeError) as error:
        raise InputError(f"{root}: {error}") from error
    if plain.classes != test.classes:
        raise InputError(f"{root}: train/ and val/ have different classes.")
    held, rest = _hold_out(len(plain), search, seed)
    splits: dict[str, InMemory | Streamed] = {
        "train": Streamed(Subset(varied, rest.tolist())),
        "search": Streamed(Subset(plain, held.tolist())),
        "test": Streamed(test),
    }
    return Data("folder", splits, n_classes=len(plain.classes), input_shape=(3, 224, 224))


_LOADERS: dict[str, Callable[[Path | None, int, int], Data]] = {
    "digits": _digits,
    "fashion-mnist": _fashion_mnist,
    "cifar10": _cifar(10),
    "cifar100": _cifar(100),
    "folder": _folder,
}


def _in_memory(
    name: str,
    train: tuple[Images, Labels],
    test: tuple[Images, Labels],
    search: int,
    seed: int,
    *,
    n_classes: int | None = None,
) -> Data:
    images, labels = train
    classes = n_classes or int(labels.max()) + 1
    if max(labels.max(), test[1].max()) >= classes:
        raise InputError(f"Data set {name} has a label {max(labels.max(), test[1].max())}, but only {classes} classes.")
    held, rest = _hold_out(len(images), search, seed)
    mean = images[rest].mean(axis=(0, 2, 3), dtype=np.float64).astype(np.float32)
    std = images[rest].std(axis=(0, 2, 3), dtype=np.float64).astype(np.float32)
    parts = {"train": (images[rest], labels[rest]), "search": (images[held], labels[held]), "test": test}
    splits: dict[str, InMemory | Streamed] = {key: InMemory(x, y, mean=mean, std=std) for key, (x, y) in parts.items()}
    return Data(name, splits, n_classes=classes, input_shape=tuple(images.shape[1:]))


def _hold_out(size: int, search: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """A random choice of ``search`` indices, and the rest."""
    if search >= size:
        raise InputError(f"Cannot hold {search} images out of {size}.", hint="Set data.search to fewer.")
    order = np.random.default_rng(seed).permutation(size)
    return np.sort(order[:search]), np.sort(order[search:])


def _augmented(x: torch.Tensor, augment: Augment, generator: torch.Generator) -> torch.Tensor:
    """Shift and mirror each image of a batch (N, C, H, W) on its own; what shifts in repeats the border."""
    if x.dim() != 4 or not (augment.shift or augment.flip):
        return x
    n, _, height, width = x.shape
    rows, columns = torch.arange(height).expand(n, -1), torch.arange(width).expand(n, -1)
    if augment.flip:
        mirrored = torch.rand(n, 1, generator=generator) < 0.5
        columns = torch.where(mirrored, width - 1 - columns, columns)
    if augment.shift:
        moves = torch.randint(-augment.shift, augment.shift + 1, (2, n, 1), generator=generator)
        rows, columns = (rows + moves[0]).clamp(0, height - 1), (columns + moves[1]).clamp(0, width - 1)
    return x[torch.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
