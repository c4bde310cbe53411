"""What all tests share: reproducible property tests, and an environment that no caller has set."""

import pytest
from hypothesis import HealthCheck, settings

# The same examples every time, so that a build never fails by chance; `pytest --hypothesis-profile=search` looks
# for new ones. The first call of a function may have to warm torch up, hence no deadline. Fixtures here only
# prepare what tests read, so it does not matter that the examples of a test share them.
settings.register_profile(
    "specification", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.register_profile("search", settings.get_profile("specification"), derandomize=False, max_examples=1_000)
settings.load_profile("specification")

VARIABLES = tuple(f"FIRSTSTEP_{name}" for name in ("SCALE", "DEVICE", "DATA", "BUILD", "REHEARSE", "WORKERS"))


@pytest.fixture
def clean_environment(monkeypatch):
    """None of the variables that :mod:`firststep.scale` reads is set; tests set them through the monkeypatch."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.fixture
def tiny_cifar(monkeypatch, tmp_path):
    """A folder ``FIRSTSTEP_DATA`` that holds one black test image in CIFAR-10's layout."""
    (tmp_path / "test_batch.bin").write_bytes(bytes(3073))
    monkeypatch.setenv("FIRSTSTEP_DATA", str(tmp_path))
