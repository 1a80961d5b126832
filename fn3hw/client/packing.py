"""A run folder, or that of an exported network, as a tar that is made while it is sent."""

from __future__ import annotations

import hashlib
import tarfile
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fn3hw.errors import RunError

FILES: Final = (
    *("run.toml", "supernet.onnx", "supernet.safetensors", "space.json"),
    *("history.jsonl", "moments.safetensors"),
)
NETWORK: Final = ("supernet.onnx", "space.json")
NEEDED: Final = ("run.toml", *NETWORK)
CHUNK: Final = 1 << 18
_BLOCK: Final = tarfile.BLOCKSIZE
OnBytes = Callable[[int, int], None]


@dataclass(frozen=True)
class Packed:
    """The files of a trained run, or of an exported network.

    Args:
        folder: where it is.
        sizes: bytes of each file, by name.
    """

    folder: Path
    sizes: dict[str, int]

    @classmethod
    def network(cls, folder: Path | str) -> Packed:
        """The exported network in a folder.

        Raises:
            RunError: there is none.
        """
        path = Path(folder)
        if lacking := [name for name in NETWORK if not (path / name).is_file()]:
            hint = "fn3hw.deploy.export(net).save(FOLDER) writes it."
            raise RunError(f"{folder} holds no exported network: it lacks {', '.join(lacking)}.", hint=hint)
        return cls(path, {name: (path / name).stat().st_size for name in NETWORK})

    @classmethod
    def run(cls, folder: Path | str) -> Packed:
        """The run in a folder.

        Raises:
            RunError: it is none, or not trained to its end.
        """
        path = Path(folder)
        if not (path / "run.toml").is_file():
            missing = "is no run folder" if path.exists() else "does not exist"
            hint = f"Train it: fn3hw train --recipe NAME --output {folder}"
            raise RunError(f"{folder} {missing}: it has no run.toml.", hint=hint)
        try:
            sizes = {name: (path / name).stat().st_size for name in FILES if (path / name).is_file()}
            tomllib.loads((path / "run.toml").read_text(encoding="utf-8"))["format"]
        except KeyError as error:
            raise RunError(f"{path / 'run.toml'} is damaged: it gives no format.") from error
        except (OSError, ValueError) as error:
            raise RunError(f"{path / 'run.toml'} cannot be read: {error}.") from error
        if lacking := [name for name in NEEDED if not sizes.get(name)]:
            raise RunError(
                f"{folder} is not trained to its end: it lacks {', '.join(lacking)}.",
                hint=f"Go on with its training: fn3hw train --output {folder}",
            )
        return cls(path, sizes)

    @property
    def size(self) -> int:
        """Bytes of the tar."""
        return sum(_BLOCK + _padded(size) for size in self.sizes.values()) + 2 * _BLOCK

    def digests(self) -> dict[str, str]:
        """SHA-256 of each file, by name."""
        found = {}
        for name in self.sizes:
            with (self.folder / name).open("rb") as file:
                found[name] = hashlib.file_digest(file, "sha256").hexdigest()
        return found

    def chunks(self, sent: OnBytes) -> Iterator[bytes]:
        """The tar, piece by piece.

        Args:
            sent: called with the bytes so far and all of them.

        Raises:
            RunError: a file is not as long any more as it was.
        """
        done = 0
        for chunk in self._pieces():
            yield chunk
            done += len(chunk)
            sent(done, self.size)

    def _pieces(self) -> Iterator[bytes]:
        for name, size in self.sizes.items():
            header = tarfile.TarInfo(name)
            header.size = size
            yield header.tobuf(tarfile.GNU_FORMAT)
            left = size
            with (self.folder / name).open("rb") as file:
                while left and (chunk := file.read(min(CHUNK, left))):
                    left -= len(chunk)
                    yield chunk
            if left:
                raise RunError(f"{self.folder / name} was changed while it was sent.", hint="Push the run once more.")
            yield bytes(_padded(size) - size)
        yield bytes(2 * _BLOCK)


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK
