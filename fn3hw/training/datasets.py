"""A data set in three splits, and batches of them: small sets whole in memory, others read from a torch ``Dataset``.

``train`` is trained on, ``search`` is held out of the training set to choose subnets on, ``test`` is only reported.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from fn3hw.errors import InputError, UnknownName

SPLITS: Final = ("train", "search", "test")
Labels = NDArray[np.int64]
Indices = NDArray[np.int64]
Batch = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Augment:
    """Random changes of training images: translation by up to ``shift`` pixels, mirroring where ``flip``."""

    shift: int = 0
    flip: bool = False

    def apply(self, x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """Shift and mirror each image of a batch (N, C, H, W) on its own; what shifts in repeats the border."""
        if x.dim() != 4 or not (self.shift or self.flip):
            return x
        n, _, height, width = x.shape
        rows, columns = torch.arange(height).expand(n, -1), torch.arange(width).expand(n, -1)
        if self.flip:
            mirrored = torch.from_numpy(rng.integers(0, 2, (n, 1)) == 1)
            columns = torch.where(mirrored, width - 1 - columns, columns)
        if self.shift:
            moves = torch.from_numpy(rng.integers(-self.shift, self.shift + 1, (2, n, 1)))
            rows, columns = (rows + moves[0]).clamp(0, height - 1), (columns + moves[1]).clamp(0, width - 1)
        return x[torch.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


class Split(Protocol):
    """Images with labels, read by index."""

    def __len__(self) -> int: ...

    def read(self, batches: Sequence[Indices], *, seed: int = 0) -> Iterator[Batch]:
        """Normalised images, float32 (n, C, H, W), and labels, int64 (n,), of each array of indices.

        Args:
            batches: the indices.
            seed: of random changes that items make to themselves in processes of their own.
        """
        ...


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
        self.images, self.labels = torch.from_numpy(images), torch.from_numpy(labels)
        self.mean = torch.from_numpy(mean).reshape(1, -1, 1, 1)
        self.std = torch.from_numpy(std).reshape(1, -1, 1, 1)

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, batches: Sequence[Indices], *, seed: int = 0) -> Iterator[Batch]:
        """As `Split.read`."""
        for indices in batches:
            index = torch.from_numpy(indices)
            yield (self.images[index].float() - self.mean) / self.std, self.labels[index]


class Streamed:
    """A split read from any map-style torch ``Dataset`` of (normalised image tensor, label).

    Args:
        dataset: the items.
        indices: which of them belong to the split; None for all.
        workers: processes that read items; 0 reads them in this one.
    """

    def __init__(self, dataset: Any, indices: Indices | None = None, *, workers: int = 0) -> None:
        self.dataset, self.workers = dataset, workers
        self.indices = np.arange(len(dataset)) if indices is None else indices

    def __len__(self) -> int:
        return len(self.indices)

    def read(self, batches: Sequence[Indices], *, seed: int = 0) -> Iterator[Batch]:
        """As `Split.read`.

        Raises:
            InputError: an item is no (image tensor, label) pair, or images differ in shape.
        """
        order = [self.indices[batch].tolist() for batch in batches]
        # Without a generator of its own the loader would draw from torch's, and reading would change the training.
        generator = torch.Generator().manual_seed(seed)
        loader = DataLoader(self.dataset, batch_sampler=order, num_workers=self.workers, generator=generator)
        try:
            for x, y in loader:
                yield torch.as_tensor(x, dtype=torch.float32), torch.as_tensor(y, dtype=torch.int64)
        except (TypeError, ValueError, RuntimeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"The data set's items are not all (image tensor, label) of one shape: {error}",
                hint="Give it a transform that ends in a tensor of a fixed size.",
            ) from error


class Data:
    """A data set with its splits.

    Args:
        name: what it is called in a recipe.
        splits: ``train``, ``search`` and ``test``.
        n_classes: number of classes.
        input_shape: (C, H, W) of one image, or the shape of one feature vector.

    Raises:
        InputError: a split is empty.
    """

    def __init__(self, name: str, splits: Mapping[str, Split], *, n_classes: int, input_shape: tuple[int, ...]) -> None:
        self.name, self.splits, self.n_classes, self.input_shape = name, dict(splits), n_classes, tuple(input_shape)
        if empty := [split for split in SPLITS if not len(self.splits[split])]:
            raise InputError(f"Data set {name}: no images in the split {empty[0]}.")

    def __repr__(self) -> str:
        sizes = ", ".join(f"{len(split)} {name}" for name, split in self.splits.items())
        return f"Data({self.name}: {self.n_classes} classes of {self.input_shape}; {sizes})"

    @classmethod
    def from_datasets(
        cls,
        train: Any,
        test: Any,
        *,
        n_classes: int | None = None,
        search: int = 2000,
        name: str = "own",
        seed: int = 0,
        unchanged: Any = None,
        workers: int = 0,
    ) -> Data:
        """Any map-style torch data sets of (normalised image tensor, label); part of ``train`` is held out.

        A resumed training repeats an uninterrupted one bit for bit only where an item is the same whenever it is read:
        leave random changes to the recipe.

        Args:
            train: the training set.
            test: the test set.
            n_classes: number of classes; by default ``len(train.classes)``.
            search: number of training images held out to choose subnets on.
            name: any.
            seed: of the choice of those images.
            unchanged: ``train`` without random changes, to hold out of; by default ``train`` itself.
            workers: processes that read items.

        Raises:
            InputError: too few images, an item is no (tensor, label) pair, or the number of classes is not known.
        """
        if n_classes is None and not hasattr(train, "classes"):
            raise InputError(f"Data set {name} does not say how many classes it has.", hint="Give n_classes.")
        held, rest = hold_out(len(train), search, seed)
        shapes = []
        for part in (train, test):
            item = part[0] if len(part) else None
            if not (isinstance(item, tuple | list) and len(item) == 2 and isinstance(item[0], torch.Tensor)):
                raise InputError(
                    f"Data set {name}: items must be (image tensor, label).",
                    hint="Give it a transform that ends in a tensor, such as torchvision.transforms.ToTensor().",
                )
            shapes.append(tuple(item[0].shape))
        if shapes[0] != shapes[1]:
            raise InputError(f"Data set {name}: training images have shape {shapes[0]}, test images {shapes[1]}.")
        splits = {
            "train": Streamed(train, rest, workers=workers),
            "search": Streamed(train if unchanged is None else unchanged, held, workers=workers),
            "test": Streamed(test, np.random.default_rng(0).permutation(len(test)), workers=workers),
        }
        return cls(
            name, splits, n_classes=len(train.classes) if n_classes is None else n_classes, input_shape=shapes[0]
        )

    def split(self, name: str) -> Split:
        """A split by name."""
        if name not in self.splits:
            raise UnknownName("split", name, self.splits)
        return self.splits[name]

    def arrays(self, split: str, limit: int | None = None) -> tuple[NDArray[np.float32], Labels]:
        """The first ``limit`` normalised images (N, C, H, W) and labels (N,) of a split."""
        images, labels = zip(*self.batches(split, 1024, limit=limit), strict=True)
        return np.concatenate([x.numpy() for x in images]), np.concatenate([y.numpy() for y in labels])

    def steps_per_epoch(self, batch_size: int) -> int:
        """Number of whole training batches; a smaller training set makes a single one."""
        return max(1, len(self.split("train")) // batch_size)

    def batches(self, split: str, batch_size: int, *, limit: int | None = None) -> Iterator[Batch]:
        """The images of a split in order, complete.

        Args:
            split: one of `SPLITS`.
            batch_size: images per batch; the last batch may have fewer.
            limit: only the first so many images.

        Yields:
            Normalised images, float32 (n, C, H, W), and labels, int64 (n,).
        """
        part = self.split(split)
        order = np.arange(len(part) if limit is None else min(limit, len(part)))
        return self._checked(part.read([order[i : i + batch_size] for i in range(0, order.size, batch_size)]))

    def training_batches(
        self, batch_size: int, *, seed: int, epoch: int, augment: Augment | None = None, start: int = 0
    ) -> Iterator[Batch]:
        """The training split in random order, whole batches only: batch norm would weigh a smaller one's images more.

        Order and augmentation of a batch depend on (seed, epoch, number of the batch) alone, so that a training can
        start within an epoch.

        Args:
            batch_size: images per batch.
            seed: of order and augmentation.
            epoch: another order and augmentation for each.
            augment: random changes of the images.
            start: number of the first batch wanted.

        Yields:
            As `batches`.
        """
        order = np.random.default_rng((seed, epoch)).permutation(len(self.split("train")))
        numbers = range(start, self.steps_per_epoch(batch_size))
        chunks = [order[k * batch_size : (k + 1) * batch_size] for k in numbers]
        item_seed = int(np.random.SeedSequence((seed, epoch, start)).generate_state(1)[0])
        read = self.split("train").read(chunks, seed=item_seed)
        for number, (x, y) in zip(numbers, self._checked(read), strict=True):
            yield (augment.apply(x, np.random.default_rng((seed, epoch, number))) if augment else x), y

    def _checked(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        for x, y in batches:
            low, high = int(y.min()), int(y.max())
            if low < 0 or high >= self.n_classes:
                raise InputError(
                    f"Data set {self.name} has a label {low if low < 0 else high}, "
                    f"but its {self.n_classes} classes are numbered 0 to {self.n_classes - 1}."
                )
            yield x, y

    def check_fits(self, *, n_classes: int, input_shape: tuple[int, ...]) -> None:
        """Raise `InputError` unless a network with this input and output can be used on the data."""
        if self.input_shape != tuple(input_shape):
            raise InputError(
                f"Data set {self.name} has inputs of shape {self.input_shape}, the network takes {tuple(input_shape)}.",
                hint="Build the network for the data's input_shape, or choose other data.",
            )
        if self.n_classes != n_classes:
            raise InputError(
                f"Data set {self.name} has {self.n_classes} classes, the network {n_classes}.",
                hint=f"Build the network with n_classes={self.n_classes}.",
            )


def hold_out(size: int, search: int, seed: int) -> tuple[Indices, Indices]:
    """A random choice of ``search`` of the indices below ``size``, in random order, and the rest.

    Raises:
        InputError: nothing would be left to train on, or nothing to search with.
    """
    if not 1 <= search < size:
        raise InputError(f"Cannot hold {search} images out of {size}.", hint="Set data.search to fewer, at least 1.")
    order = np.random.default_rng(seed).permutation(size)
    return order[:search], order[search:]
