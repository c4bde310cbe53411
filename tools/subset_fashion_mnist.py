"""Make the subset of Fashion-MNIST that ships with the package.

The first 200 training and the first 100 test images of each class are taken, in the original order, and
written as gzipped IDX files under the names of the originals. The gzip headers carry no name and no time, so
the same zlib makes the same files byte for byte. Run it from anywhere, with the full set in one of the places
that ``firststep.images.fashion_mnist`` looks in:

    python tools/subset_fashion_mnist.py

It prints the SHA-256 of every unpacked file; ``firststep/images.py`` holds them as ``_SUBSET``.
"""

import argparse
import gzip
import hashlib
import struct
from pathlib import Path

import torch
from torch import Tensor

from firststep.images import CLASSES, fashion_mnist

PER_CLASS = {"train": 200, "test": 100}
PREFIX = {"train": "train", "test": "t10k"}
TARGET = Path(__file__).parents[1] / "src" / "firststep" / "fashion_mnist"


def first_of_each_class(labels: Tensor, per_class: int) -> Tensor:
    """Positions of the first ``per_class`` samples of each class, in increasing order."""
    positions = [torch.nonzero(labels == label).flatten()[:per_class] for label in range(len(CLASSES))]
    return torch.cat(positions).sort().values


def idx_bytes(array: Tensor) -> bytes:
    """An array of unsigned bytes in the IDX format."""
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return header + array.contiguous().numpy().tobytes()


def make_subset(target: Path = TARGET, *, fetch: bool = False) -> dict[str, str]:
    """Write the four files of the subset to the folder ``target``.

    Args:
        target: an existing folder.
        fetch: download the full set if it is nowhere on the machine.

    Returns:
        The SHA-256 of each unpacked file, by its name without ``.gz``.
    """
    checksums = {}
    for split, per_class in PER_CLASS.items():
        full = fashion_mnist(split, full=True, fetch=fetch, device="cpu")
        kept = first_of_each_class(full.y, per_class)
        images = (full.x[kept] * 255).round().to(torch.uint8).reshape(-1, 28, 28)
        labels = full.y[kept].to(torch.uint8)
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            stem, content = f"{PREFIX[split]}-{kind}-ubyte", idx_bytes(array)
            with (
                open(target / f"{stem}.gz", "wb") as file,
                gzip.GzipFile("", "wb", compresslevel=9, fileobj=file, mtime=0) as packed,
            ):
                packed.write(content)
            checksums[stem] = hashlib.sha256(content).hexdigest()
    return checksums


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", type=Path, default=TARGET, help="folder to write to (the package's)")
    parser.add_argument("--fetch", action="store_true", help="download the full set if it is not here")
    arguments = parser.parse_args()
    for stem, checksum in make_subset(arguments.target, fetch=arguments.fetch).items():
        print(f'"{stem}": "{checksum}",')


if __name__ == "__main__":
    main()
