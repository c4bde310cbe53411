"""The scale decides sizes, the device decides the place, and only one module asks the environment."""

import re
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import firststep
from firststep import scale

pytestmark = pytest.mark.usefixtures("clean_environment")


@pytest.fixture
def environment(clean_environment):
    return clean_environment


@pytest.mark.parametrize("name, value", [("smoke", 20), ("cpu", 2_000), ("gpu", 20_000)])
def test_pick_gives_the_value_of_the_current_scale(environment, name, value):
    environment.setenv("FIRSTSTEP_SCALE", name)
    assert scale.name() == name
    assert scale.pick(smoke=20, cpu=2_000, gpu=20_000) == value


def test_the_scale_is_cpu_unless_it_is_set():
    assert scale.name() == "cpu"
    assert scale.pick(smoke=1, cpu=2, gpu=3) == 2


def test_every_choice_names_a_size_for_the_gpu_so_that_none_falls_back_in_silence():
    with pytest.raises(TypeError, match="gpu"):
        scale.pick(smoke=1, cpu=2)


@pytest.mark.parametrize("name, value", [("smoke", 1), ("cpu", 2), ("gpu", 3)])
def test_a_rehearsal_has_the_sizes_of_its_scale_and_the_counts_of_smoke(environment, name, value):
    environment.setenv("FIRSTSTEP_SCALE", name)
    assert scale.count(smoke=1, cpu=2, gpu=3) == value
    environment.setenv("FIRSTSTEP_REHEARSE", "1")
    assert scale.count(smoke=1, cpu=2, gpu=3) == 1
    assert scale.pick(smoke=1, cpu=2, gpu=3) == value


def test_a_list_of_sizes_has_a_tuple_of_counts(environment):
    assert scale.count(smoke=(1, 1), cpu=(40, 20), gpu=(400, 200)) == (40, 20)
    environment.setenv("FIRSTSTEP_REHEARSE", "1")
    assert scale.count(smoke=(1, 2), cpu=(40, 20), gpu=(400, 200)) == (1, 2)


@pytest.mark.parametrize("wrong", [0, -1, 2.5, "3", (), (4, 0), [4]])
def test_a_count_that_is_none_is_named(wrong):
    with pytest.raises(ValueError, match="gpu must be a positive integer"):
        scale.count(smoke=1, cpu=2, gpu=wrong)


def test_the_builder_runs_two_kernels_unless_told_otherwise(environment):
    assert scale.workers() == 2
    environment.setenv("FIRSTSTEP_WORKERS", "5")
    assert scale.workers() == 5


@pytest.mark.parametrize("text", ["0", "-1", "2.5", "many", "²"])
def test_a_number_of_workers_that_is_none_is_named(environment, text):
    environment.setenv("FIRSTSTEP_WORKERS", text)
    with pytest.raises(ValueError, match="FIRSTSTEP_WORKERS"):
        scale.workers()


@pytest.mark.parametrize("falsy", [0, "", False, ()])
def test_a_falsy_value_for_gpu_is_a_value(environment, falsy):
    environment.setenv("FIRSTSTEP_SCALE", "gpu")
    assert scale.pick(smoke=1, cpu=2, gpu=falsy) == falsy


@given(word=st.text(st.characters(codec="ascii", exclude_categories=["Cc"])).filter(lambda w: w not in scale.SCALES))
def test_an_unknown_scale_is_named_with_the_known_ones(word):
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("FIRSTSTEP_SCALE", word)
        with pytest.raises(ValueError) as caught:
            scale.name()
    assert str(caught.value) == f"FIRSTSTEP_SCALE must be one of cpu, gpu, smoke, got FIRSTSTEP_SCALE={word!r}"


@pytest.mark.parametrize("name", ["smoke", "cpu"])
def test_small_scales_run_on_the_cpu(environment, name):
    environment.setenv("FIRSTSTEP_SCALE", name)
    assert scale.device() == torch.device("cpu")


def test_gpu_scale_runs_on_cuda(environment):
    environment.setenv("FIRSTSTEP_SCALE", "gpu")
    environment.setattr(torch.cuda, "is_available", lambda: True)
    environment.setattr(torch, "empty", lambda *size, device: None)  # a GPU that this machine may not have
    assert scale.device() == torch.device("cuda")


def test_the_device_variable_overrules_the_scale(environment):
    environment.setenv("FIRSTSTEP_SCALE", "gpu")
    environment.setenv("FIRSTSTEP_DEVICE", "cpu")
    assert scale.device() == torch.device("cpu")


@pytest.mark.parametrize("variable, value", [("FIRSTSTEP_SCALE", "gpu"), ("FIRSTSTEP_DEVICE", "cuda:0")])
def test_asking_for_a_gpu_where_there_is_none_says_what_to_do(environment, variable, value):
    environment.setenv(variable, value)
    environment.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"FIRSTSTEP_DEVICE .* 'cuda.*finds no GPU here; run with SCALE=cpu"):
        scale.device()


@pytest.mark.parametrize("device", ["warp", "cpu:x", "cuda:-3"])
def test_an_unknown_device_is_named(environment, device):
    environment.setenv("FIRSTSTEP_DEVICE", device)
    with pytest.raises(ValueError, match=f"FIRSTSTEP_DEVICE must be a torch device .*{device!r}"):
        scale.device()


@pytest.mark.parametrize("error", [AssertionError("not compiled"), NotImplementedError("no such backend")])
def test_a_device_that_torch_knows_but_cannot_use_is_named(environment, error):
    def refuse(*size, device):
        raise error

    environment.setenv("FIRSTSTEP_DEVICE", "mps")
    environment.setattr(torch, "empty", refuse)
    with pytest.raises(ValueError, match=f"FIRSTSTEP_DEVICE must be a device that torch can use, got 'mps': {error}"):
        scale.device()


def test_the_data_folder_is_none_unless_it_is_set(environment, tmp_path):
    assert scale.data_dir() is None
    environment.setenv("FIRSTSTEP_DATA", str(tmp_path))
    assert scale.data_dir() == tmp_path


def test_a_missing_data_folder_is_named(environment, tmp_path):
    missing = str(tmp_path / "missing")
    environment.setenv("FIRSTSTEP_DATA", missing)
    with pytest.raises(ValueError, match="FIRSTSTEP_DATA must be an existing folder, got .*" + re.escape(missing)):
        scale.data_dir()


@pytest.mark.parametrize("value, building", [(None, False), ("", False), ("0", False), ("1", True)])
def test_the_builder_announces_itself_with_a_one(environment, value, building):
    if value is not None:
        environment.setenv("FIRSTSTEP_BUILD", value)
    assert scale.building() is building


def test_no_other_module_reads_the_environment():
    package = Path(firststep.__file__).parent
    # Kernels get the environment as it is, which is not reading it.
    code = {path.name: path.read_text("utf-8").replace("**os.environ", "") for path in package.rglob("*.py")}
    assert [name for name, text in code.items() if re.search(r"\b(environ|getenv)\b", text)] == ["scale.py"]
