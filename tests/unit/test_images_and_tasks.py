"""Synthetic linear tasks against dense algebra; Fashion-MNIST against the originals."""

import gzip
import hashlib
import importlib.util
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from firststep import images as fashion
from firststep import linear_tasks, scale

ROOT = Path(__file__).parents[2]
DEBIAN_HAS_IT = (fashion._DEBIAN.folder / "train-images-idx3-ubyte.gz").exists()
needs_originals = pytest.mark.skipif(
    not DEBIAN_HAS_IT, reason="Debian's package dataset-fashion-mnist is not installed"
)
# The first call of a test may have to warm torch up.
no_deadline = settings(deadline=None)

sizes = st.integers(1, 7)
dtypes = st.sampled_from([torch.float32, torch.float64])
noises = st.sampled_from([0, 0.3])
teachers = st.sampled_from(["gaussian", "none"])


def seeds(*numbers):
    return [torch.Generator().manual_seed(number) for number in numbers]


def seed(number):
    return torch.Generator().manual_seed(number)


# Linear tasks


@no_deadline
@given(d_in=sizes, d_out=sizes, n=sizes, dtype=dtypes, noise=noises, whitened=st.booleans())
def test_moments_equal_the_dense_products(d_in, d_out, n, dtype, noise, whitened):
    n = n + d_in if whitened else n
    arguments = {"whitened": whitened, "noise": noise, "dtype": dtype}
    task = linear_tasks.linear_task(d_in, d_out, n, generator=seeds(0, 1), **arguments)
    tolerance = 100 * torch.finfo(dtype).eps
    torch.testing.assert_close(task.moments.xx, task.x @ task.x.mT, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(task.moments.yx, task.y @ task.x.mT, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(task.moments.yy, torch.linalg.matrix_norm(task.y) ** 2, rtol=tolerance, atol=tolerance)


@no_deadline
@given(d_in=sizes, d_out=sizes, n=sizes, dtype=dtypes, teacher=teachers)
def test_one_seed_has_no_batch_axis_and_a_list_of_seeds_has_one(d_in, d_out, n, dtype, teacher):
    for generator, batch in ((seed(0), ()), (seeds(0), (1,)), (tuple(seeds(0, 1, 2)), (3,))):
        task = linear_tasks.linear_task(d_in, d_out, n, generator=generator, teacher=teacher, dtype=dtype)
        shapes = [(d_in, n), (d_out, n), (d_in, d_in), (d_out, d_in), ()]
        tensors = [task.x, task.y, task.moments.xx, task.moments.yx, task.moments.yy]
        if teacher == "gaussian":
            shapes.append((d_out, d_in))
            tensors.append(task.teacher)
        else:
            assert task.teacher is None
        assert [tuple(tensor.shape) for tensor in tensors] == [(*batch, *shape) for shape in shapes]
        assert {tensor.dtype for tensor in tensors} == {dtype}


@no_deadline
@given(d_in=sizes, d_out=sizes, extra=sizes, dtype=dtypes, whitened=st.booleans(), teacher=teachers)
def test_seed_three_of_a_batch_equals_seed_three_alone(d_in, d_out, extra, dtype, whitened, teacher):
    arguments = {"whitened": whitened, "teacher": teacher, "dtype": dtype}
    batch = linear_tasks.linear_task(d_in, d_out, d_in + extra, generator=seeds(0, 1, 2, 3, 4), **arguments)
    alone = linear_tasks.linear_task(d_in, d_out, d_in + extra, generator=seed(3), **arguments)
    pairs = [(getattr(batch, name), getattr(alone, name)) for name in ("x", "y", "teacher")]
    pairs += [(getattr(batch.moments, name), getattr(alone.moments, name)) for name in ("xx", "yx", "yy")]
    for many, one in pairs:
        assert one is None if many is None else torch.equal(many[3], one)


@no_deadline
@given(d_in=st.integers(1, 30), extra=st.integers(0, 50), dtype=dtypes)
def test_whitened_inputs_have_orthonormal_rows_to_round_off_and_the_identity_as_moment(d_in, extra, dtype):
    task = linear_tasks.linear_task(d_in, 2, d_in + extra, generator=seed(d_in), whitened=True, dtype=dtype)
    identity = torch.eye(d_in, dtype=dtype)
    assert torch.equal(task.moments.xx, identity)
    round_off = 20 * torch.finfo(dtype).eps
    torch.testing.assert_close(task.x @ task.x.mT, identity, rtol=0, atol=round_off)


def test_without_whitening_the_inputs_do_not_have_orthonormal_rows():
    task = linear_tasks.linear_task(5, 2, 20, generator=seed(0))
    assert (task.x @ task.x.mT - torch.eye(5)).abs().max() > 0.05


def test_whitened_noiseless_yx_is_the_teacher_entry_for_entry():
    task = linear_tasks.linear_task(9, 7, 40, generator=seeds(0, 1), whitened=True)
    assert torch.equal(task.moments.yx, task.teacher)


@no_deadline
@given(d_in=st.integers(1, 10), d_out=sizes, whitened=st.booleans())
def test_least_squares_recovers_the_planted_teacher_from_noiseless_data(d_in, d_out, whitened):
    task = linear_tasks.linear_task(d_in, d_out, 4 * d_in + 4, generator=seed(5), whitened=whitened)
    solution = torch.linalg.lstsq(task.x.mT, task.y.mT).solution.mT
    torch.testing.assert_close(solution, task.teacher, rtol=1e-9, atol=1e-9)
    from_moments = torch.linalg.solve(task.moments.xx, task.moments.yx, left=False)
    torch.testing.assert_close(from_moments, solution, rtol=1e-8, atol=1e-8)


def test_a_tensor_is_planted_as_it_is_and_may_differ_between_seeds():
    common = torch.randn(3, 4, generator=seed(1), dtype=torch.float64)
    each = torch.randn(2, 3, 4, generator=seed(2), dtype=torch.float64)
    assert torch.equal(linear_tasks.linear_task(4, 3, 9, generator=seed(0), teacher=common).teacher, common)
    shared = linear_tasks.linear_task(4, 3, 9, generator=seeds(0, 1), teacher=common)
    assert torch.equal(shared.teacher, common.expand(2, 3, 4))
    task = linear_tasks.linear_task(4, 3, 9, generator=seeds(0, 1), teacher=each)
    assert torch.equal(task.teacher, each)
    torch.testing.assert_close(task.y, each @ task.x)


def test_a_task_does_not_change_when_the_tensor_planted_in_it_does():
    planted = torch.ones(2, 3, dtype=torch.float64)
    for generator in (seed(0), seeds(0, 1)):
        task = linear_tasks.linear_task(3, 2, 5, generator=generator, teacher=planted)
        planted += 1
        assert not torch.equal(task.teacher, planted.expand_as(task.teacher))


def test_noise_moves_the_targets_and_leaves_inputs_and_teacher_alone():
    clean = linear_tasks.linear_task(6, 4, 5_000, generator=seed(0))
    noisy = linear_tasks.linear_task(6, 4, 5_000, generator=seed(0), noise=0.5)
    assert torch.equal(clean.x, noisy.x) and torch.equal(clean.teacher, noisy.teacher)
    # 20,000 entries: the sample standard deviation is within 5/√40,000 = 2.5 % of σ/√n.
    spread = (noisy.y - noisy.teacher @ noisy.x).std() * 5_000**0.5
    assert 0.4875 < spread < 0.5125


def test_targets_without_a_teacher_are_independent_of_the_inputs_and_yx_has_full_rank():
    task = linear_tasks.linear_task(8, 5, 4_000, generator=seeds(*range(20)), teacher="none")
    assert (torch.linalg.matrix_rank(task.moments.yx) == 5).all()
    # An entry of YXᵀ is a sum of n products of variance 1/n²: √n times it is standard normal. There are 800.
    entries = task.moments.yx * 4_000**0.5
    assert abs(entries.mean()) < 5 / 800**0.5 and abs(entries.std() - 1) < 5 / 1600**0.5


def test_xx_tends_to_the_identity_inside_the_marchenko_pastur_edges():
    for n, d in ((400, 100), (6_400, 100)):
        eigenvalues = torch.linalg.eigvalsh(linear_tasks.linear_task(d, 1, n, generator=seed(0)).moments.xx)
        low, high = (1 - (d / n) ** 0.5) ** 2, (1 + (d / n) ** 0.5) ** 2
        # Beyond the edges the extreme eigenvalues fluctuate on the scale d^(-2/3) of Tracy and Widom.
        slack = 3 * (d / n) ** 0.5 * d ** (-2 / 3)
        assert low - slack < eigenvalues.min() < low + 3 * slack
        assert high - 3 * slack < eigenvalues.max() < high + slack


def test_a_gaussian_teacher_gives_targets_the_variance_of_the_inputs():
    task = linear_tasks.linear_task(50, 40, 500, generator=seeds(*range(20)))
    assert 0.95 < (task.teacher.std() * 50**0.5) < 1.05
    assert 0.9 < task.y.std() / task.x.std() < 1.1


def test_whitened_inputs_favour_no_direction():
    task = linear_tasks.linear_task(2, 1, 5, generator=seeds(*range(2_000)), whitened=True)
    # A uniform point on the sphere in 5 dimensions: mean 0 and variance 1/5 in each coordinate.
    assert (task.x.mean(0).abs() < 5 * (0.2 / 2_000) ** 0.5).all()
    assert ((task.x.square().mean(0) - 0.2).abs() < 5 * (0.2 / 2_000) ** 0.5).all()


# Fashion-MNIST


def load_tool():
    spec = importlib.util.spec_from_file_location("subset_tool", ROOT / "tools" / "subset_fashion_mnist.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


@pytest.mark.parametrize(("split", "per_class"), [("train", 200), ("test", 100)])
def test_the_shipped_subset_is_balanced_and_its_pixels_are_256ths_of_the_unit_interval(split, per_class):
    images = fashion.fashion_mnist(split)
    assert images.x.shape == (10 * per_class, 784) and images.x.dtype == torch.float32
    assert images.y.dtype == torch.int64
    assert images.y.bincount().tolist() == [per_class] * 10
    assert images.x.min() == 0 and images.x.max() == 1
    assert torch.equal((images.x * 255).round() / 255, images.x)
    assert images.classes[images.y[0]] in fashion.CLASSES and len(images.classes) == 10
    assert "subset" in images.source


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_dtype_rounds_the_same_pixels(dtype):
    exact = fashion.fashion_mnist("test", dtype=torch.float64).x
    images = fashion.fashion_mnist("test", dtype=dtype).x
    assert images.dtype == dtype
    torch.testing.assert_close(images.double(), exact, rtol=torch.finfo(dtype).eps, atol=0)


def test_an_image_is_a_row_of_28_by_28_pixels_read_row_by_row():
    # Trousers (class 1) stand upright: they reach the upper and lower edge, and left and right of them it is
    # dark. Reading the pixels column by column would lay them on their side.
    images = fashion.fashion_mnist()
    trousers = images.x[images.y == 1].reshape(-1, 28, 28).mean(0)
    sides, ends = trousers[:, [0, 1, -2, -1]].mean(), trousers[[0, 1, -2, -1], :].mean()
    assert sides < 0.02 and ends > 0.1


def test_every_call_returns_fresh_tensors():
    first = fashion.fashion_mnist("test")
    first.x.zero_()
    assert fashion.fashion_mnist("test").x.max() == 1


def test_the_shipped_files_are_small_carry_the_licence_and_match_their_readme():
    folder = fashion._SHIPPED.folder
    assert all(file.stat().st_size < 1_500_000 for file in folder.iterdir())
    notice = " ".join((folder / "LICENSE").read_text(encoding="utf-8").split())
    assert "Copyright © 2017 Zalando SE" in notice
    assert "The above copyright notice and this permission notice shall be included in all copies" in notice
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert dict(re.findall(r"`([\w-]+)\.gz`.*`([0-9a-f]{64})`", readme)) == fashion._SUBSET.sha256


@needs_originals
@pytest.mark.parametrize(("split", "per_class"), [("train", 200), ("test", 100)])
def test_the_subset_is_the_first_images_of_each_class_in_the_original_order(split, per_class, monkeypatch):
    monkeypatch.setattr(scale, "data_dir", lambda: None)
    full, subset = fashion.fashion_mnist(split, full=True), fashion.fashion_mnist(split)
    assert full.y.bincount().tolist() == [30 * per_class if split == "train" else 10 * per_class] * 10
    seen, kept = [0] * 10, []
    for position, label in enumerate(full.y.tolist()):
        if seen[label] < per_class:
            kept.append(position)
        seen[label] += 1
    assert torch.equal(subset.x, full.x[kept]) and torch.equal(subset.y, full.y[kept])


@needs_originals
def test_making_the_subset_again_gives_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(scale, "data_dir", lambda: None)
    tool = load_tool()
    assert tool.make_subset(tmp_path) == fashion._SUBSET.sha256
    for stem, checksum in fashion._SUBSET.sha256.items():
        packed = (tmp_path / f"{stem}.gz").read_bytes()
        assert hashlib.sha256(gzip.decompress(packed)).hexdigest() == checksum
        assert packed[3:8] == bytes(5), "the gzip header has a name or a time"
        assert gzip.decompress((fashion._SHIPPED.folder / f"{stem}.gz").read_bytes()) == gzip.decompress(packed)


@no_deadline
@given(labels=st.lists(st.integers(0, 9), max_size=60), per_class=st.integers(1, 4))
def test_the_first_of_each_class_are_the_earliest_and_keep_their_order(labels, per_class):
    kept = load_tool().first_of_each_class(torch.tensor(labels, dtype=torch.int64), per_class).tolist()
    assert kept == [i for i, label in enumerate(labels) if labels[:i].count(label) < per_class]


# Finding the full set. The shipped subset stands in for it, so that these run on any machine.


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine without the full set whose "full set" would be the subset's bytes; the three empty places."""
    places = {name: tmp_path / name for name in ("own", "debian", "cache")}
    for folder in places.values():
        folder.mkdir()
    monkeypatch.setattr(fashion, "_FULL", fashion._SUBSET)
    monkeypatch.setattr(fashion, "_DEBIAN", fashion._Place(places["debian"], "Debian", "reinstall"))
    monkeypatch.setattr("pooch.os_cache", lambda project: places["cache"] / project)
    monkeypatch.setattr(scale, "data_dir", lambda: places["own"])
    return {**places, "cache": places["cache"] / "firststep"}


def install(folder, *, packed=True):
    """Put the four files into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for stem in fashion._SUBSET.sha256:
        content = (fashion._SHIPPED.folder / f"{stem}.gz").read_bytes()
        name, content = (f"{stem}.gz", content) if packed else (stem, gzip.decompress(content))
        (folder / name).write_bytes(content)


@pytest.mark.parametrize("place", ["own", "debian", "cache"])
@pytest.mark.parametrize("subfolder", [".", "fashion-mnist", "FashionMNIST/raw"])
@pytest.mark.parametrize("packed", [True, False])
def test_the_full_set_is_found_in_each_place_packed_or_not(machine, place, subfolder, packed):
    install(machine[place] / subfolder, packed=packed)
    found, shipped = fashion.fashion_mnist("test", full=True), fashion.fashion_mnist("test")
    assert torch.equal(found.x, shipped.x) and torch.equal(found.y, shipped.y)
    assert found.source == {"own": "full set in FIRSTSTEP_DATA", "debian": "Debian"}.get(
        place, "full set in the user's cache"
    )


def test_the_users_folder_comes_before_debians_and_debians_before_the_cache(machine):
    install(machine["cache"])
    assert "cache" in fashion.fashion_mnist(full=True).source
    install(machine["debian"])
    assert fashion.fashion_mnist(full=True).source == "Debian"
    install(machine["own"])
    assert "FIRSTSTEP_DATA" in fashion.fashion_mnist(full=True).source


def test_a_users_folder_without_fashion_mnist_is_passed_over(machine):
    (machine["own"] / "cifar-10-batches-bin").mkdir()
    install(machine["debian"])
    assert fashion.fashion_mnist(full=True).source == "Debian"


def test_other_digits_under_the_same_names_beside_a_named_folder_are_passed_over(machine):
    install(machine["own"] / "FashionMNIST" / "raw")
    (machine["own"] / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"MNIST"))
    assert "FIRSTSTEP_DATA" in fashion.fashion_mnist(full=True).source
