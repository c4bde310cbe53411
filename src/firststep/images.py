"""Fashion-MNIST as tensors.

It is read from IDX files whose SHA-256 is known. A damaged file is refused, and so is another data set under the same
names: the digits of MNIST come in files of exactly these names, shapes and labels.
"""

import gzip
import hashlib
import math
import os
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from firststep import checks, scale

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
"""Names of the ten classes of Fashion-MNIST; label k is ``CLASSES[k]``."""


class DataError(ValueError):
    """A data file is missing or does not hold what it should; the message names it and says what to do."""


@dataclass(frozen=True, eq=False)
class Images:
    """Labelled images.

    Attributes:
        x: pixels from 0 (black) to 1 (white), one row an image, ``(n, 784)`` for 28×28 pixels, row by row;
            ``x.T`` has the book's one column a sample. In colour, all of red, then of green, then of blue.
        y: labels, int64, ``(n,)``, indices into ``classes``.
        classes: the names of the classes.
        source: where the images came from, in words.
    """

    x: Tensor
    y: Tensor
    classes: tuple[str, ...]
    source: str


@dataclass(frozen=True)
class _Edition:
    """What the files of one edition hold: images per split, SHA-256 of each file when unpacked."""

    count: Mapping[str, int]
    sha256: Mapping[str, str]


@dataclass(frozen=True)
class _Place:
    """A folder that may hold Fashion-MNIST; what to call it and what to do about a bad file in it."""

    folder: Path
    source: str
    remedy: str


_SIDE = 28
_STEMS = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}

# Of the unpacked files, because Debian and others pack the same bytes anew.
_FULL = _Edition(
    count={"train": 60_000, "test": 10_000},
    sha256={
        "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
)

# Printed by tools/subset_fashion_mnist.py, which makes the files.
_SUBSET = _Edition(
    count={"train": 2_000, "test": 1_000},
    sha256={
        "train-images-idx3-ubyte": "a724cd72799a6b1c3a81c4263865a75a73bb6473673b3394e34adf222930f19e",
        "train-labels-idx1-ubyte": "4738fd437c0f8d6498ae7f6f5c86f1cc3c878d4116ff169fc5635bd6847899cc",
        "t10k-images-idx3-ubyte": "7cee33c3c6414b1b86c25e665a6c4f41584269de3b7cc9768b1d351922845eef",
        "t10k-labels-idx1-ubyte": "3128d790775889812b73c4f13923559c8b9e281d112c6ea7862acf60a206a909",
    },
)

# The authors' own archives (github.com/zalandoresearch/fashion-mnist); unpacked, they are the files of _FULL.
# The address has no https: a download is trusted for its checksum.
_BASE_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
_ARCHIVES = {
    "train-images-idx3-ubyte.gz": "sha256:3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    "train-labels-idx1-ubyte.gz": "sha256:a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    "t10k-images-idx3-ubyte.gz": "sha256:346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    "t10k-labels-idx1-ubyte.gz": "sha256:67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
}

_SHIPPED = _Place(
    Path(__file__).with_name("fashion_mnist"),
    "subset shipped with firststep",
    "reinstall firststep",
)
_DEBIAN = _Place(
    Path("/usr/share/datasets/fashion-mnist"),
    "full set of Debian's package dataset-fashion-mnist",
    "reinstall dataset-fashion-mnist, or set FIRSTSTEP_DATA to a folder with a good copy",
)
_OWN_REMEDY = "replace it by a good copy, or unset FIRSTSTEP_DATA"
_CACHE_REMEDY = "delete it, or call fashion_mnist with fetch=True"
# Named folders first: a folder of data sets may hold MNIST, whose files have the same names, at its top.
_SUBFOLDERS = ("fashion-mnist", "FashionMNIST/raw", ".")


def fashion_mnist(
    split: Literal["train", "test"] = "train",
    *,
    full: bool = False,
    dtype: torch.dtype = torch.float32,
    fetch: bool = False,
    device: torch.device | str | None = None,
) -> Images:
    """Fashion-MNIST: 28×28 grey pictures of ten kinds of clothing.

    A balanced subset ships with the package: the first 200 training and the first 100 test images of each
    class, in the original order. The full set is looked for in the folder ``FIRSTSTEP_DATA`` (in its
    subfolders ``fashion-mnist`` and ``FashionMNIST/raw``, then directly), in Debian's package
    ``dataset-fashion-mnist`` and in the user's cache, packed (``.gz``) or not. Wherever it is found, it is
    the same set, byte for byte: its SHA-256 is checked at every reading. A bad file in one place is an error,
    not a reason to try the next.

    Args:
        split: ``"train"`` or ``"test"``.
        full: the full 60,000 training or 10,000 test images, not the subset's 2,000 or 1,000.
        dtype: floating-point type of the pixels.
        fetch: with ``full``, download the set to the user's cache (once, up to 27 MB) if neither
            ``FIRSTSTEP_DATA`` nor Debian's package holds it; also replaces a damaged file in the cache.
        device: of the images; by default :func:`firststep.scale.device`.

    Returns:
        The images, and where they came from.

    Raises:
        ValueError: an argument is outside what is described above.
        DataError: a file is missing, unreadable or damaged, holds another data set, or cannot be downloaded.

    Source: Xiao, Rasul and Vollgraf (2017), arXiv:1708.07747; MIT licence.
    """
    checks.one_of("split", split, tuple(_STEMS))
    checks.flag("full", full)
    checks.flag("fetch", fetch)
    checks.require(full or not fetch, "fetch", fetch, "False unless full=True (the subset is never fetched)")
    checks.floating("dtype", dtype)

    place, edition = (_full_set(split, fetch=fetch), _FULL) if full else (_SHIPPED, _SUBSET)
    images, labels = _read_split(place, split, edition)
    device = scale.chosen(device)
    x, y = images.flatten(1).to(device, dtype) / 255, labels.to(device, torch.int64)
    return Images(x=x, y=y, classes=CLASSES, source=place.source)


def _full_set(split: str, *, fetch: bool) -> _Place:
    """The first place that holds a file of the split's full set, fetched if it may be, or a DataError."""
    own = scale.data_dir()
    cache = _pooch("the full Fashion-MNIST").os_cache("firststep")
    places = [] if own is None else [_Place(own, "full set in FIRSTSTEP_DATA", _OWN_REMEDY)]
    places.append(_DEBIAN)
    cached = _Place(cache, "full set in the user's cache", _CACHE_REMEDY)
    found = _first_holding(places, split)
    if found is None:
        if fetch:
            _fetch(split, cache / _SUBFOLDERS[0])
        found = _first_holding([cached], split)
    if found is None:
        looked = ", ".join(str(place.folder) for place in [*places, cached])
        raise DataError(
            f"{_STEMS[split][0]}.gz of the full Fashion-MNIST was not found in {looked}; set FIRSTSTEP_DATA "
            "to the folder that holds it, install Debian's package dataset-fashion-mnist, or call "
            "fashion_mnist with fetch=True to download it once"
        )
    return found


def _first_holding(places: list[_Place], split: str) -> _Place | None:
    """The first of the places with a file of the split, narrowed to the subfolder that has it."""
    names = [stem + suffix for stem in _STEMS[split] for suffix in (".gz", "")]
    for place in places:
        for folder in (place.folder / subfolder for subfolder in _SUBFOLDERS):
            if any(os.path.exists(folder / name) for name in names):
                return _Place(folder, place.source, place.remedy)
    return None


def _pooch(what: str):
    """The package that knows the user's cache and downloads; needed for full sets only, so imported late."""
    try:
        import pooch
    except ImportError as error:
        raise DataError(f"{what} needs the package pooch; install firststep[book]") from error
    return pooch


def _fetch(split: str, folder: Path) -> None:
    """Download the split's archives that ``folder`` lacks or holds damaged; they appear there only whole."""
    for stem in _STEMS[split]:
        _download(_BASE_URL, f"{stem}.gz", _ARCHIVES, folder, "the four files of Fashion-MNIST")


def _download(base_url: str, name: str, hashes: Mapping[str, str], folder: Path, what: str) -> None:
    """Put the file of a known hash into ``folder``, unless it lies there whole; ``what`` is what it belongs to."""
    try:
        _pooch(what).create(path=folder, base_url=base_url, registry=hashes, retry_if_failed=2).fetch(name)
    # Connections and disks fail with an OSError, a checksum that does not match is a ValueError.
    except (OSError, ValueError) as error:
        raise DataError(
            f"{name} could not be downloaded from {base_url} to {folder} ({error}); try again, or "
            f"get {what} in another way and set FIRSTSTEP_DATA to their folder"
        ) from error


def _read_split(place: _Place, split: str, edition: _Edition) -> tuple[Tensor, Tensor]:
    """Images ``(n, 28, 28)`` and labels ``(n,)`` as bytes, checked against the edition."""
    count = edition.count[split]
    images, labels = (
        _read_idx(place, stem, shape=shape, sha256=edition.sha256[stem])
        for stem, shape in zip(_STEMS[split], ((count, _SIDE, _SIDE), (count,)), strict=True)
    )
    return images, labels


def _read_idx(place: _Place, stem: str, *, shape: tuple[int, ...], sha256: str) -> Tensor:
    """Read unsigned bytes of the given shape from an IDX file, packed or not, or raise a DataError.

    IDX is two zero bytes, the type (8: unsigned byte), the number of dimensions, each dimension as a
    big-endian 32-bit integer, and the entries with the last index fastest. No more is read than the shape
    allows, so a file that unpacks to more than it should cannot fill the memory.
    """
    packed, unpacked = place.folder / f"{stem}.gz", place.folder / stem
    path = unpacked if os.path.exists(unpacked) and not os.path.exists(packed) else packed
    header = struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape)
    try:
        with gzip.open(path) if path == packed else open(path, "rb") as file:
            # The one byte too many makes gzip reach the end and compare its own checksum.
            content = file.read(len(header) + math.prod(shape) + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}); {place.remedy}") from error
    defect = _defect(content, header, math.prod(shape), sha256)
    if defect:
        raise DataError(f"{path} {defect}; {place.remedy}")
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=len(header)).reshape(shape)


def _defect(content: bytes, header: bytes, size: int, sha256: str) -> str | None:
    """What is wrong with the unpacked content of an IDX file, or None."""
    if content[:4] != header[:4]:
        start, magic = content[:4].hex(), header[:4].hex()
        return f"is not an IDX file of the right kind: it starts with {start!r}, not {magic!r}"
    if len(content) < len(header):
        return f"ends inside its header, after {len(content)} of {len(header)} bytes"
    if content[: len(header)] != header:
        return f"has shape {_idx_shape(content[: len(header)])}, not {_idx_shape(header)}"
    if len(content) != len(header) + size:
        amount = "fewer" if len(content) < len(header) + size else "more"
        return f"holds {amount} entries than the {size} it announces"
    if hashlib.sha256(content).hexdigest() != sha256:
        return f"holds other entries than Fashion-MNIST (unpacked, its SHA-256 is not {sha256})"
    return None


def _idx_shape(header: bytes) -> tuple[int, ...]:
    """The shape that an IDX header announces."""
    return struct.unpack(f">{(len(header) - 4) // 4}I", header[4:])
