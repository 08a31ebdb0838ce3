"""What all tests share: how hard hypothesis tries, byte code, and what is begun ahead."""

import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.ahead import Ahead, key_of

settings.register_profile(
    "house",
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("house")

# Hundreds of processes import this tree's modules: to compile them is most of what a short one does.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


@pytest.fixture(scope="session", autouse=True)
def begun(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ahead]:
    begun = Ahead(request.session.items, tmp_path_factory.mktemp)
    yield begun
    begun.end()


@pytest.fixture
def ahead(request: pytest.FixtureRequest, begun: Ahead) -> Any:
    """The result of what was begun ahead for this very test."""
    return begun.result(*key_of(request.node))
