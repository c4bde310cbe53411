"""CIFAR-10's binary layout, from files that the tests write."""

import hashlib
import io
import tarfile

import pytest
import torch

from firststep import cifar, scale
from firststep.images import DataError

NAMES = [name for names in cifar._NAMES.values() for name in names]


def records(n, number=0):
    """``n`` records of random bytes with labels in order, as a tensor."""
    found = torch.randint(256, (n, 3073), generator=torch.Generator().manual_seed(number), dtype=torch.uint8)
    found[:, 0] = torch.arange(n) % 10
    return found


def content(n=20):
    return {name: records(n, number).numpy().tobytes() for number, name in enumerate(NAMES)}


def write(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)


def pack(path, files, prefix="cifar-10-batches-bin/"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as packed:
        for name, data in files.items():
            member = tarfile.TarInfo(prefix + name)
            member.size = len(data)
            packed.addfile(member, io.BytesIO(data))


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine without CIFAR-10: the folder FIRSTSTEP_DATA and the cache, both empty."""
    own, cache = tmp_path / "own", tmp_path / "cache"
    own.mkdir()
    monkeypatch.setattr("pooch.os_cache", lambda project: cache / project)
    monkeypatch.setattr(scale, "data_dir", lambda: own)
    return {"own": own, "cache": cache / "firststep"}


@pytest.fixture
def official(monkeypatch):
    """Makes an archive of 20 images a file the official one."""

    def become(path):
        monkeypatch.setattr(cifar, "_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
        monkeypatch.setattr(cifar, "_OFFICIAL", 20)

    return become


@pytest.mark.parametrize("subfolder", [".", "cifar-10-batches-bin"])
def test_pixels_are_256ths_of_one_colour_by_colour_and_row_by_row(machine, subfolder):
    write(machine["own"] / subfolder, content())
    assert cifar.available()
    train, test = cifar.cifar10(), cifar.cifar10("test", dtype=torch.float64)
    assert train.x.shape == (100, 3072) and train.x.dtype == torch.float32 and test.x.dtype == torch.float64
    assert torch.equal(train.x, torch.cat([records(20, k)[:, 1:] for k in range(5)]) / 255)
    assert train.y.tolist() == [k % 10 for k in range(20)] * 5 and train.y.dtype == torch.int64
    last = records(20, 5)
    green = test.x.reshape(-1, *cifar.SHAPE)[7, 1]
    assert torch.equal(green[2], last[7, 1 + 1024 + 64 : 1 + 1024 + 96].double() / 255)
    assert "layout of 100 images" in train.source and "official" not in train.source
    assert train.classes[3] == "cat"


def test_files_may_have_different_numbers_of_images(machine):
    write(machine["own"], content() | {"data_batch_2.bin": records(1).numpy().tobytes()})
    assert len(cifar.cifar10().x) == 81


def test_without_a_set_the_error_says_where_it_was_looked_for_and_what_to_do(machine):
    assert not cifar.available()
    with pytest.raises(DataError, match=r"FIRSTSTEP_DATA.*fetch=True"):
        cifar.cifar10()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-1], "whole number of images"),
        (lambda data: b"", "at least one"),
        (lambda data: data + b"\0", r"of 3,073 bytes, got 61,461 bytes"),
        (lambda data: data[:3073] + b"\x0a" + data[3074:], "labels from 0 to 9, got label 10 at image 1"),
    ],
)
def test_a_folder_with_another_layout_is_refused_by_the_name_of_the_file(machine, damage, message):
    files = content()
    write(machine["own"], files | {"data_batch_3.bin": damage(files["data_batch_3.bin"])})
    with pytest.raises(DataError, match=f"data_batch_3.bin.*{message}.*unset FIRSTSTEP_DATA"):
        cifar.cifar10()
    assert len(cifar.cifar10("test").x) == 20


def test_a_folder_that_lacks_a_file_is_an_error_and_not_a_reason_to_look_elsewhere(machine, official):
    pack(machine["cache"] / "cifar-10-binary.tar.gz", content())
    official(machine["cache"] / "cifar-10-binary.tar.gz")
    write(machine["own"], {name: data for name, data in content().items() if name != "data_batch_5.bin"})
    with pytest.raises(DataError, match=r"must hold data_batch_5\.bin"):
        cifar.cifar10()


@pytest.mark.parametrize("place", ["own", "cache"])
def test_the_archive_with_the_official_checksum_is_the_official_set(machine, official, place):
    archive = machine[place] / "cifar-10-binary.tar.gz"
    pack(archive, content() | {"batches.meta.txt": b"airplane\n", "../../outside": b"!"})
    official(archive)
    found = cifar.cifar10("test")
    assert torch.equal(found.x, records(20, 5)[:, 1:] / 255) and "official" in found.source
    assert sorted(path.name for path in archive.parent.iterdir()) == [archive.name]  # nothing was unpacked


def test_another_archive_under_the_name_is_refused_before_it_is_opened(machine, monkeypatch):
    pack(machine["own"] / "cifar-10-binary.tar.gz", content())
    monkeypatch.setattr(tarfile, "open", lambda *_, **__: pytest.fail("opened"))
    with pytest.raises(DataError, match="not the official archive"):
        cifar.cifar10()


@pytest.mark.parametrize("short", [dict(list(content(19).items())), dict(list(content().items())[:3])])
def test_an_archive_with_files_of_other_sizes_or_without_one_is_refused(machine, official, short):
    archive = machine["cache"] / "cifar-10-binary.tar.gz"
    pack(archive, short)
    official(archive)
    with pytest.raises(DataError, match=r"data_batch_\d.bin"):
        cifar.cifar10()


def test_fetching_downloads_the_archive_once_into_the_cache(machine, official, tmp_path, monkeypatch):
    pack(tmp_path / "served" / "cifar-10-binary.tar.gz", content())
    official(tmp_path / "served" / "cifar-10-binary.tar.gz")
    asked = []

    class Downloads:
        def __init__(self, path, base_url, registry, retry_if_failed):
            self.path, self.registry = path, registry
            assert base_url == "https://www.cs.toronto.edu/~kriz/"

        def fetch(self, name):
            asked.append(name)
            assert self.registry == {name: f"sha256:{cifar._SHA256}"}
            self.path.mkdir(parents=True)
            (self.path / name).write_bytes((tmp_path / "served" / name).read_bytes())

    monkeypatch.setattr("pooch.create", Downloads)
    assert len(cifar.cifar10(fetch=True).x) == 100 and len(cifar.cifar10("test", fetch=True).x) == 20
    assert asked == ["cifar-10-binary.tar.gz"]


def test_a_download_that_fails_says_so(machine, monkeypatch):
    class Downloads:
        def __init__(self, **_):
            pass

        def fetch(self, name):
            raise OSError("no route to host")

    monkeypatch.setattr("pooch.create", Downloads)
    with pytest.raises(DataError, match=r"could not be downloaded.*no route to host"):
        cifar.cifar10(fetch=True)
