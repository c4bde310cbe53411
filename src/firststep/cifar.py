"""CIFAR-10 as tensors, from its binary layout; nothing is unpickled.

A record is 3,073 bytes: a label from 0 to 9, then 1,024 pixels each of red, green and blue. That layout is all that a
folder of a user's own has to show; the official set is told by the checksum of its archive.
"""

import hashlib
import tarfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from firststep import checks, images, scale
from firststep.images import DataError, Images

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
"""Names of the ten classes of CIFAR-10; label k is ``CLASSES[k]``."""

SHAPE = (3, 32, 32)
"""Colours, rows and columns of an image: ``x.reshape(-1, *SHAPE)``."""

_FOLDER = "cifar-10-batches-bin"
_NAMES = {"train": tuple(f"data_batch_{k}.bin" for k in range(1, 6)), "test": ("test_batch.bin",)}
_RECORD = 1 + 3 * 32 * 32
_OFFICIAL = 10_000  # records a file

# The author's archive, of 170,052,171 bytes. He publishes its MD5, c32a1d4ab5d03f1284b67883e8d87530; this is the
# SHA-256 of the same bytes, as several libraries that load them have it.
_BASE_URL = "https://www.cs.toronto.edu/~kriz/"
_ARCHIVE = "cifar-10-binary.tar.gz"
_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"


def cifar10(
    split: Literal["train", "test"] = "train",
    *,
    dtype: torch.dtype = torch.float32,
    fetch: bool = False,
    device: torch.device | str | None = None,
) -> Images:
    """CIFAR-10: colour pictures of 32×32 pixels, of ten kinds of animals and vehicles.

    Looked for in the folder ``FIRSTSTEP_DATA`` (in its subfolder ``cifar-10-batches-bin``, then directly), as
    ``data_batch_1.bin`` to ``data_batch_5.bin`` and ``test_batch.bin``, of any number of images; then for the official
    archive ``cifar-10-binary.tar.gz``, there and in the user's cache. Its SHA-256 is checked at every reading. A bad
    file in one place is an error, not a reason to try the next.

    Args:
        split: ``"train"`` or ``"test"``: 50,000 or 10,000 images in the official set.
        dtype: floating-point type of the pixels.
        fetch: download the archive to the user's cache (once, 170 MB) if ``FIRSTSTEP_DATA`` does not hold the set.
        device: of the images; by default :func:`firststep.scale.device`.

    Returns:
        The images, ``x: (n, 3072)``, and where they came from: the official set, or one in its layout.

    Raises:
        ValueError: an argument is outside what is described above.
        DataError: there is no set, a file is unreadable or damaged, or the archive cannot be downloaded.

    Source: Krizhevsky (2009), and the description at www.cs.toronto.edu/~kriz/cifar.html.
    """
    checks.one_of("split", split, _NAMES)
    checks.floating("dtype", dtype)
    checks.flag("fetch", fetch)

    device = scale.chosen(device)
    records, source = _find(split, fetch)
    y = records[:, 0].to(device, torch.int64)
    return Images(x=records[:, 1:].to(device, dtype) / 255, y=y, classes=CLASSES, source=source)


def available() -> bool:
    """Whether ``FIRSTSTEP_DATA`` or the user's cache holds a set: files by these names, or the archive.

    A page that can do without asks first. What is there may still be damaged: then :func:`cifar10` says so.
    """
    return _own_folder() is not None or _archive() is not None


def _find(split: str, fetch: bool) -> tuple[Tensor, str]:
    """Records ``(n, 3073)`` of the split as bytes, and where they came from in words."""
    own = _own_folder()
    if own is not None:
        records = _read(own, _NAMES[split], lambda name: (own / name).read_bytes())
        return records, f"a set in CIFAR-10's layout of {len(records):,} images, in FIRSTSTEP_DATA"
    if _archive() is None and fetch:
        cache = images._pooch("CIFAR-10").os_cache("firststep")
        images._download(_BASE_URL, _ARCHIVE, {_ARCHIVE: f"sha256:{_SHA256}"}, cache, "the files of CIFAR-10")
    archive = _archive()
    if archive is None:
        raise DataError(
            f"CIFAR-10 was not found: neither {_NAMES[split][0]} in the folder FIRSTSTEP_DATA or its subfolder "
            f"{_FOLDER}, nor {_ARCHIVE} there or in the user's cache; set FIRSTSTEP_DATA to the folder that holds "
            "the set in its binary layout, or call cifar10 with fetch=True to download it once (170 MB)"
        )
    return _read_archive(archive, _NAMES[split]), f"the official set, by the checksum of {archive.name}"


def _own_folder() -> Path | None:
    """Where in ``FIRSTSTEP_DATA`` a file of the set lies, or ``None``."""
    own = scale.data_dir()
    folders = [] if own is None else [own / _FOLDER, own]
    names = [name for split in _NAMES.values() for name in split]
    return next((folder for folder in folders if any((folder / name).exists() for name in names)), None)


def _archive() -> Path | None:
    """The official archive in ``FIRSTSTEP_DATA``, else in the user's cache, or ``None``."""
    own = scale.data_dir()
    if own is not None and (own / _ARCHIVE).exists():
        return own / _ARCHIVE
    try:
        cached = Path(images._pooch("CIFAR-10").os_cache("firststep")) / _ARCHIVE
    except DataError:  # nothing can have been downloaded without it
        return None
    return cached if cached.exists() else None


def _read_archive(archive: Path, names: Sequence[str]) -> Tensor:
    """Records of the archive's members, read in memory: nothing is unpacked to the disk, under whatever name."""
    try:
        with open(archive, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != _SHA256:
                raise DataError(f"{archive} is not the official archive: its SHA-256 is {found}; {_remedy(archive)}")
            file.seek(0)
            with tarfile.open(fileobj=file, mode="r:gz") as packed:
                # One pass from the beginning: going back would unpack everything again.
                content = {m.name: packed.extractfile(m).read() for m in packed if m.isfile() and _wanted(m, names)}
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise DataError(f"{archive} cannot be read ({error}); {_remedy(archive)}") from error
    return _read(archive, names, lambda name: content[f"{_FOLDER}/{name}"], each=_OFFICIAL)


def _wanted(member: tarfile.TarInfo, names: Sequence[str]) -> bool:
    return member.name in {f"{_FOLDER}/{name}" for name in names}


def _read(place: Path, names: Sequence[str], read: Callable[[str], bytes], each: int | None = None) -> Tensor:
    """Records of the files by these names, one after the other, or a DataError that says what is wrong."""
    parts = []
    for name in names:
        try:
            content = read(name)
        except (OSError, KeyError) as error:
            raise DataError(f"{place} must hold {name}, which cannot be read ({error}); {_remedy(place)}") from error
        count, rest = divmod(len(content), _RECORD)
        if rest or not count or each not in (None, count):
            wanted = f"{each:,} images" if each else "a whole number of images, at least one,"
            sized = f"{len(content):,} bytes"
            raise DataError(f"{name} in {place} must hold {wanted} of {_RECORD:,} bytes, got {sized}; {_remedy(place)}")
        records = torch.frombuffer(bytearray(content), dtype=torch.uint8).reshape(count, _RECORD)
        if int(records[:, 0].max()) > 9:
            where = int((records[:, 0] > 9).nonzero()[0])
            found = f"label {int(records[where, 0])} at image {where:,}"
            raise DataError(f"{name} in {place} must have labels from 0 to 9, got {found}; {_remedy(place)}")
        parts.append(records)
    return torch.cat(parts)


def _remedy(place: Path) -> str:
    own = scale.data_dir()
    in_own = own is not None and place.is_relative_to(own)
    return "replace it by a good copy, or unset FIRSTSTEP_DATA" if in_own else "delete it, and call with fetch=True"
