"""Bad arguments, damaged files and broken downloads: a named error, and never a wrong picture."""

import gzip
import hashlib
import math
import os
import pickle
import struct
import subprocess
import sys
import threading
import tracemalloc
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from firststep import images as fashion
from firststep import linear_tasks, scale

# As they are before a test puts others in their place.
ARCHIVES, DEBIAN, FULL = fashion._ARCHIVES, fashion._DEBIAN, fashion._FULL
IMAGES, LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
no_deadline = settings(deadline=None)


def seed(number=0):
    return torch.Generator().manual_seed(number)


def shipped(stem):
    """A shipped file, packed."""
    return (fashion._SHIPPED.folder / f"{stem}.gz").read_bytes()


# Bad arguments

not_a_size = st.one_of(
    st.integers(max_value=0), st.floats(), st.booleans(), st.none(), st.text(max_size=3), st.just([3])
)


@no_deadline
@given(name=st.sampled_from(["d_in", "d_out", "n"]), value=not_a_size)
def test_sizes_must_be_positive_integers(name, value):
    arguments = {"d_in": 3, "d_out": 2, "n": 5, name: value}
    with pytest.raises(ValueError, match=f"^{name} must be a positive integer, got {name}="):
        linear_tasks.linear_task(**arguments, generator=seed())


@no_deadline
@given(d_in=st.integers(2, 20), missing=st.integers(1, 19))
def test_whitened_data_need_as_many_samples_as_inputs(d_in, missing):
    n = max(d_in - missing, 1)
    with pytest.raises(ValueError, match=f"n >= d_in, got n={n}, d_in={d_in}"):
        linear_tasks.linear_task(d_in, 1, n, generator=seed(), whitened=True)


@no_deadline
@given(noise=st.floats(max_value=-1e-300) | st.sampled_from([math.nan, math.inf, True, None, "1", 1j]))
def test_noise_must_be_finite_and_not_negative(noise):
    with pytest.raises(ValueError, match=r"^noise must be a (finite )?number of at least 0, got noise="):
        linear_tasks.linear_task(3, 2, 5, generator=seed(), noise=noise)


def test_noise_has_no_meaning_without_a_teacher():
    with pytest.raises(ValueError, match=r"^noise must be 0 when teacher='none'.*got noise=0\.1"):
        linear_tasks.linear_task(3, 2, 5, generator=seed(), teacher="none", noise=0.1)


@pytest.mark.parametrize("generator", [None, 0, [], (), [0], [torch.Generator(), None], "ab", {1: 2}])
def test_generator_must_be_one_or_a_sequence(generator):
    with pytest.raises(ValueError, match=r"^generator must be a torch\.Generator or a non-empty list"):
        linear_tasks.linear_task(3, 2, 5, generator=generator)


def test_one_generator_cannot_serve_two_seeds():
    generator = seed()
    with pytest.raises(ValueError, match="list of different ones"):
        linear_tasks.linear_task(3, 2, 5, generator=[generator, generator])


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        ("planted", "^teacher must be 'gaussian', 'none' or a floating-point tensor, got teacher='planted'"),
        (None, "got teacher=None"),
        ([[1.0, 2.0, 3.0]], "got teacher="),
        (torch.ones(2, 3, dtype=torch.int64), "floating-point tensor"),
        (torch.ones(2, 3, dtype=torch.complex128), "floating-point tensor"),
        (torch.full((2, 3), math.nan), "finite"),
        (torch.full((2, 3), 1e300, dtype=torch.float64), "finite"),  # infinite in float32
        (torch.ones(3, 2), r"^teacher must have shape \(2, 3\), got teacher of shape \(3, 2\)"),
        (torch.ones(1, 2, 3), r"got teacher of shape \(1, 2, 3\)"),
        (torch.ones(3), "teacher must be a batch of non-empty matrices"),
    ],
)
def test_a_teacher_must_fit(teacher, message):
    with pytest.raises(ValueError, match=message):
        linear_tasks.linear_task(3, 2, 5, generator=seed(), teacher=teacher, dtype=torch.float32)


def test_there_must_be_one_teacher_or_one_for_each_seed():
    message = r"shape \(2, 3\) or \(2, 2, 3\), got teacher of shape \(3, 2, 3\)"
    with pytest.raises(ValueError, match=message):
        linear_tasks.linear_task(3, 2, 5, generator=[seed(0), seed(1)], teacher=torch.ones(3, 2, 3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.int64, torch.complex64, "float64", None])
def test_linear_tasks_are_in_single_or_double_precision(dtype):
    with pytest.raises(ValueError, match=r"^dtype must be torch\.float32 or torch\.float64, got dtype="):
        linear_tasks.linear_task(3, 2, 5, generator=seed(), dtype=dtype)


@pytest.mark.parametrize("value", [1, "yes", None])
def test_switches_must_be_true_or_false(value):
    for name in ("full", "fetch"):
        with pytest.raises(ValueError, match=f"^{name} must be True or False, got {name}="):
            fashion.fashion_mnist(**{name: value})
    with pytest.raises(ValueError, match=r"^whitened must be True or False, got whitened="):
        linear_tasks.linear_task(3, 2, 5, generator=seed(), whitened=value)


@no_deadline
@given(split=st.one_of(st.text(), st.none(), st.integers()).filter(lambda s: s not in ("train", "test")))
def test_split_must_be_train_or_test(split):
    with pytest.raises(ValueError, match=r"^split must be one of test, train, got split="):
        fashion.fashion_mnist(split)


def test_the_subset_is_never_fetched():
    with pytest.raises(ValueError, match=r"^fetch must be False unless full=True"):
        fashion.fashion_mnist(fetch=True)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, "float32", None])
def test_pixels_must_be_floating_point(dtype):
    with pytest.raises(ValueError, match=r"^dtype must be torch\.float32 or torch\.float64, got dtype="):
        fashion.fashion_mnist(dtype=dtype)


# Damaged files. The subset stands in for the full set, so that these run on any machine.


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine on which only the user's folder holds the set (the subset's test split, packed)."""
    own = tmp_path / "own"
    own.mkdir()
    for stem in (IMAGES, LABELS):
        (own / f"{stem}.gz").write_bytes(shipped(stem))
    monkeypatch.setattr(fashion, "_FULL", fashion._SUBSET)
    monkeypatch.setattr(fashion, "_DEBIAN", fashion._Place(tmp_path / "debian", "Debian", "reinstall"))
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / "cache" / project)
    monkeypatch.setattr(scale, "data_dir", lambda: own)
    return own


GOOD = fashion.fashion_mnist("test")


def damaged_or_equal():
    """Read the full set: the good arrays, or an error that names a file."""
    try:
        found = fashion.fashion_mnist("test", full=True)
    except fashion.DataError as error:
        assert IMAGES in str(error) or LABELS in str(error)
        return "damaged"
    assert torch.equal(found.x, GOOD.x) and torch.equal(found.y, GOOD.y)
    return "equal"


def store(folder, stem, content, *, packed):
    """Leave exactly one form of a file in the folder."""
    for name, keep in ((f"{stem}.gz", packed), (stem, not packed)):
        (folder / name).unlink(missing_ok=True)
        if keep:
            (folder / name).write_bytes(content)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    stem=st.sampled_from([IMAGES, LABELS]),
    packed=st.booleans(),
    start=st.integers(0, 40) | st.integers(-40, -1) | st.integers(0, 1 << 20),
    bit=st.integers(0, 7),
    cut=st.booleans(),
)
def test_a_flipped_bit_or_a_cut_gives_an_error_or_the_same_pictures(machine, stem, packed, start, bit, cut):
    content = bytearray(shipped(stem) if packed else gzip.decompress(shipped(stem)))
    position = start % len(content)
    if cut:
        del content[position:]
    else:
        content[position] ^= 1 << bit
    for name in (IMAGES, LABELS):
        store(machine, name, shipped(name), packed=True)
    store(machine, stem, bytes(content), packed=packed)
    if damaged_or_equal() == "equal":  # a bit of gzip's header, or of the padding after its last block
        assert packed and gzip.decompress(bytes(content)) == gzip.decompress(shipped(stem))


def idx(*shape, kind=8, fill=0):
    return struct.pack(f">HBB{len(shape)}I", 0, kind, len(shape), *shape) + bytes([fill]) * math.prod(shape)


labels = gzip.decompress(shipped(LABELS))
cases = {
    "text in place of gzip": (LABELS, b"<html>not found</html>", True, "cannot be read .*[Nn]ot a gzipped file"),
    "an empty packed file": (LABELS, b"", True, "it starts with ''"),
    "an empty unpacked file": (LABELS, b"", False, "it starts with ''"),
    "a packed file cut in the middle": (IMAGES, shipped(IMAGES)[:200_000], True, "cannot be read .*ended before"),
    "a packed file without its checksum": (IMAGES, shipped(IMAGES)[:-8], True, "cannot be read .*ended before"),
    "a broken deflate stream": (LABELS, shipped(LABELS)[:10] + b"\xff" * 99, True, "cannot be read .*invalid"),
    "something after the gzip stream": (LABELS, shipped(LABELS) + b"more", True, "cannot be read"),
    "a cut unpacked file": (LABELS, labels[:-1], False, "holds fewer entries than the 1000 it announces"),
    "a header only": (LABELS, labels[:8], False, "holds fewer entries"),
    "a cut header": (IMAGES, gzip.decompress(shipped(IMAGES))[:9], False, "ends inside its header, after 9 of 16"),
    "an entry too many": (LABELS, labels + b"\0", False, "holds more entries"),
    "32-bit integers": (LABELS, idx(1000, kind=12), False, "with '00000c01', not '00000801'"),
    "labels in place of images": (IMAGES, labels, False, "with '00000801', not '00000803'"),
    "the labels of another split": (LABELS, idx(2000), False, r"has shape \(2000,\), not \(1000,\)"),
    "images of another size": (IMAGES, idx(1000, 32, 32), False, r"shape \(1000, 32, 32\), not \(1000, 28, 28\)"),
    "a label out of range": (LABELS, labels[:-1] + b"\x0a", False, "holds other entries than Fashion-MNIST"),
    "digits under the same names": (IMAGES, idx(1000, 28, 28, fill=7), False, "holds other entries"),
}


@pytest.mark.parametrize("case", cases)
def test_a_bad_file_is_named_with_its_defect_and_what_to_do(machine, case):
    stem, content, packed, defect = cases[case]
    store(machine, stem, content, packed=packed)
    path = machine / (f"{stem}.gz" if packed else stem)
    with pytest.raises(fashion.DataError, match=rf"{defect}.*; replace it by a good copy, or unset") as error:
        fashion.fashion_mnist("test", full=True)
    assert str(error.value).startswith(str(path))


def test_a_missing_file_of_the_pair_is_named(machine):
    (machine / f"{LABELS}.gz").unlink()
    with pytest.raises(fashion.DataError, match=rf"^{machine}/{LABELS}\.gz cannot be read .*No such file"):
        fashion.fashion_mnist("test", full=True)


def test_an_unreadable_file_is_named(machine):
    (machine / f"{IMAGES}.gz").unlink()
    (machine / f"{IMAGES}.gz").mkdir()
    with pytest.raises(fashion.DataError, match=rf"^{machine}/{IMAGES}\.gz cannot be read .*directory"):
        fashion.fashion_mnist("test", full=True)
    (machine / f"{IMAGES}.gz").rmdir()
    (machine / f"{IMAGES}.gz").symlink_to(machine / f"{IMAGES}.gz")
    with pytest.raises(fashion.DataError, match=rf"^{machine}/{IMAGES}\.gz cannot be read .*symbolic links"):
        fashion.fashion_mnist("test", full=True)


def test_a_damaged_shipped_file_says_to_reinstall(machine, monkeypatch):
    (machine / f"{LABELS}.gz").write_bytes(b"")
    monkeypatch.setattr(fashion, "_SHIPPED", fashion._Place(machine, "subset", fashion._SHIPPED.remedy))
    with pytest.raises(fashion.DataError, match=r"; reinstall firststep$"):
        fashion.fashion_mnist("test")


def test_a_bad_file_is_an_error_although_another_place_holds_a_good_one(machine, monkeypatch):
    monkeypatch.setattr(fashion, "_DEBIAN", fashion._SHIPPED)
    (machine / f"{LABELS}.gz").write_bytes(b"")
    with pytest.raises(fashion.DataError, match="unset FIRSTSTEP_DATA"):
        fashion.fashion_mnist("test", full=True)
    monkeypatch.setattr(scale, "data_dir", lambda: None)
    assert damaged_or_equal() == "equal"


def test_a_set_found_nowhere_names_the_file_the_places_and_three_ways_out(machine, tmp_path):
    with pytest.raises(fashion.DataError) as error:
        fashion.fashion_mnist("train", full=True)
    for part in (
        "train-images-idx3-ubyte.gz of the full Fashion-MNIST was not found",
        str(machine),
        str(tmp_path / "debian"),
        str(tmp_path / "cache" / "firststep"),
        "set FIRSTSTEP_DATA",
        "install Debian's package dataset-fashion-mnist",
        "fetch=True",
    ):
        assert part in str(error.value)


def test_a_folder_that_does_not_exist_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setenv("FIRSTSTEP_DATA", str(tmp_path / "typo"))
    with pytest.raises(ValueError, match=r"^FIRSTSTEP_DATA must be an existing folder, got .*typo"):
        fashion.fashion_mnist(full=True)


def test_nothing_in_a_file_is_executed(machine, tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    for content in (pickle.dumps(Trap()), gzip.compress(pickle.dumps(Trap()))):
        for packed in (True, False):
            store(machine, LABELS, content, packed=packed)
            with pytest.raises(fashion.DataError):
                fashion.fashion_mnist("test", full=True)
    assert not (tmp_path / "sprung").exists()
    pickle.loads(pickle.dumps(Trap()))
    assert (tmp_path / "sprung").exists(), "the trap would not have sprung at all"


def test_a_file_that_unpacks_to_far_more_than_it_should_does_not_fill_the_memory(machine):
    with gzip.open(machine / f"{LABELS}.gz", "wb") as file:
        file.write(labels)
        for _ in range(64):
            file.write(bytes(1 << 20))
    tracemalloc.start()
    with pytest.raises(fashion.DataError, match="holds more entries"):
        fashion.fashion_mnist("test", full=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # The test images alone are three quarters of a megabyte, and are held twice while they are read.
    assert peak < 8 << 20


# Downloads, from a server on this machine.


class Server(ThreadingHTTPServer):
    """Serves the files of ``content``; ``fault`` says how it fails at the file ``faulty``."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = {f"/{stem}.gz": shipped(stem) for stem in fashion._SUBSET.sha256}
        self.fault, self.faulty, self.served = None, f"/{IMAGES}.gz", []
        self.half_sent, self.go_on = threading.Event(), threading.Event()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, body = self.server, self.server.content[self.path]
        server.served.append(self.path)
        fault = server.fault if self.path == server.faulty else None
        if fault == "refuse":
            self.send_error(503)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if fault == "other page":
            body = b"please log in".ljust(len(body))
        if fault in ("hang up", "stall"):
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            server.half_sent.set()
            if fault == "stall":
                server.go_on.wait(60)
            self.close_connection = True
            return
        self.wfile.write(body)

    def log_message(self, *arguments):
        """Say nothing."""


def registry(content):
    return {path.strip("/"): f"sha256:{hashlib.sha256(body).hexdigest()}" for path, body in content.items()}


@pytest.fixture
def server(machine, monkeypatch):
    """A server of the subset's archives, known by their checksums; the user's folder is empty."""
    for file in machine.iterdir():
        file.unlink()
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setattr(fashion, "_BASE_URL", server.url)
    monkeypatch.setattr(fashion, "_ARCHIVES", registry(server.content))
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield server
    server.go_on.set()
    server.shutdown()
    thread.join()
    server.server_close()


def cached_files(tmp_path):
    return sorted(file.name for file in (tmp_path / "cache").rglob("*") if file.is_file())


def test_a_fetched_set_is_read_from_the_cache_ever_after(server, tmp_path):
    fetched = fashion.fashion_mnist("test", full=True, fetch=True)
    assert torch.equal(fetched.x, GOOD.x) and torch.equal(fetched.y, GOOD.y)
    assert fetched.source == "full set in the user's cache"
    assert cached_files(tmp_path) == [f"{IMAGES}.gz", f"{LABELS}.gz"]
    assert server.served == [f"/{IMAGES}.gz", f"/{LABELS}.gz"]
    fashion.fashion_mnist("test", full=True, fetch=True)
    assert damaged_or_equal() == "equal"
    assert len(server.served) == 2


def test_nothing_is_fetched_without_being_asked_for_nor_when_the_machine_has_it(server, machine):
    with pytest.raises(fashion.DataError, match="was not found"):
        fashion.fashion_mnist("test", full=True)
    for stem in (IMAGES, LABELS):
        (machine / f"{stem}.gz").write_bytes(shipped(stem))
    assert "FIRSTSTEP_DATA" in fashion.fashion_mnist("test", full=True, fetch=True).source
    assert server.served == []


@pytest.mark.parametrize("fault", ["refuse", "other page", "hang up"])
def test_a_failed_download_leaves_no_file_and_the_next_one_succeeds(server, tmp_path, fault):
    server.fault = fault
    message = rf"^{IMAGES}\.gz could not be downloaded from {server.url} to .*set FIRSTSTEP_DATA"
    with pytest.raises(fashion.DataError, match=message):
        fashion.fashion_mnist("test", full=True, fetch=True)
    assert cached_files(tmp_path) == []
    assert len(server.served) == 3, "tried three times"
    server.fault = None
    assert fashion.fashion_mnist("test", full=True, fetch=True).x.shape == (1000, 784)


def test_a_download_that_fails_between_the_files_goes_on_where_it_stopped(server):
    server.fault, server.faulty = "refuse", f"/{LABELS}.gz"
    with pytest.raises(fashion.DataError, match=rf"^{LABELS}\.gz could not be downloaded"):
        fashion.fashion_mnist("test", full=True, fetch=True)
    with pytest.raises(fashion.DataError, match=rf"{LABELS}\.gz cannot be read .*with fetch=True$"):
        fashion.fashion_mnist("test", full=True)
    server.fault = None
    fashion.fashion_mnist("test", full=True, fetch=True)
    assert server.served.count(f"/{IMAGES}.gz") == 1


def test_a_damaged_file_in_the_cache_is_reported_and_replaced_by_a_fetch(server, tmp_path):
    fashion.fashion_mnist("test", full=True, fetch=True)
    bad = next((tmp_path / "cache").rglob(f"{IMAGES}.gz"))
    bad.write_bytes(shipped(IMAGES)[:-100])
    with pytest.raises(fashion.DataError, match=r"; delete it, or call fashion_mnist with fetch=True$"):
        fashion.fashion_mnist("test", full=True)
    fashion.fashion_mnist("test", full=True, fetch=True)
    assert damaged_or_equal() == "equal"


def test_no_connection_is_an_error_that_names_the_file(server, monkeypatch):
    monkeypatch.setattr(fashion, "_BASE_URL", "http://127.0.0.1:9/")  # the port of "discard", where nobody listens
    with pytest.raises(fashion.DataError, match=rf"^{IMAGES}\.gz could not be downloaded"):
        fashion.fashion_mnist("test", full=True, fetch=True)


def test_a_cache_that_cannot_be_written_is_an_error_that_names_it(server, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(fashion.DataError, match=rf"could not be downloaded .* to {tmp_path}/cache"):
        fashion.fashion_mnist("test", full=True, fetch=True)


def test_two_fetches_at_once_both_succeed(server):
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(fashion.fashion_mnist("test", full=True, fetch=True)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and all(torch.equal(images.x, GOOD.x) for images in found)


FETCH = """
import sys
from pathlib import Path
import pooch
from firststep import images as fashion, scale
url, cache, checksum = sys.argv[1:]
fashion._BASE_URL, fashion._FULL = url, fashion._SUBSET
fashion._ARCHIVES = {"t10k-images-idx3-ubyte.gz": checksum, "t10k-labels-idx1-ubyte.gz": checksum}
fashion._DEBIAN = fashion._Place(Path(cache) / "nowhere", "", "")
pooch.os_cache = lambda project: Path(cache) / project
scale.data_dir = lambda: None
fashion.fashion_mnist("test", full=True, fetch=True)
"""


def test_a_process_killed_while_it_downloads_leaves_nothing_that_is_taken_for_the_file(server, tmp_path):
    server.fault = "stall"
    checksum = fashion._ARCHIVES[f"{IMAGES}.gz"]
    process = subprocess.Popen([sys.executable, "-c", FETCH, server.url, str(tmp_path / "cache"), checksum])
    assert server.half_sent.wait(60)
    process.kill()
    process.wait()
    assert f"{IMAGES}.gz" not in cached_files(tmp_path)
    with pytest.raises(fashion.DataError, match="was not found"):
        fashion.fashion_mnist("test", full=True)
    server.fault = None
    fashion.fashion_mnist("test", full=True, fetch=True)
    assert damaged_or_equal() == "equal"


# The real thing, as far as a machine without a network can check it.

MADE = {"train": 1504176606, "t10k": 1504176627}
"""When the authors packed their files (seconds since 1970): the times in the headers of their archives."""


def official_archive(stem):
    """The authors' archive: Debian keeps its compressed stream, under a header without its name and time."""
    packed = (DEBIAN.folder / f"{stem}.gz").read_bytes()
    header = b"\x1f\x8b\x08\x08" + struct.pack("<I", MADE[stem.split("-")[0]]) + packed[8:10]
    return header + stem.encode() + b"\0" + packed[10:]


needs_originals = pytest.mark.skipif(
    not (DEBIAN.folder / "train-images-idx3-ubyte.gz").exists(),
    reason="Debian's package dataset-fashion-mnist is not installed",
)


@needs_originals
def test_the_checksums_of_archives_and_of_their_contents_belong_to_each_other():
    for stem, checksum in FULL.sha256.items():
        archive = official_archive(stem)
        assert ARCHIVES[f"{stem}.gz"] == f"sha256:{hashlib.sha256(archive).hexdigest()}"
        assert hashlib.sha256(gzip.decompress(archive)).hexdigest() == checksum


@needs_originals
def test_the_authors_archives_pass_through_a_download_into_the_full_set(server, monkeypatch):
    server.content = {f"/{stem}.gz": official_archive(stem) for stem in (IMAGES, LABELS)}
    monkeypatch.setattr(fashion, "_ARCHIVES", ARCHIVES)
    monkeypatch.setattr(fashion, "_FULL", FULL)
    fetched = fashion.fashion_mnist("test", full=True, fetch=True)
    images, labels = fashion._read_split(DEBIAN, "test", FULL)
    assert torch.equal((fetched.x * 255).round().byte(), images.flatten(1)) and torch.equal(fetched.y, labels.long())
