"""Finished runs that tests share and never change, and a way to start one."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers import TINY_TDEC
from tests.runs.running import QUICK, Asked, start


@pytest.fixture(scope="session")
def quick(tmp_path_factory, shared_cache) -> Path:
    """The finished run of ``experiment=quick``; its folder is never changed."""
    return start(tmp_path_factory.mktemp("quick"), shared_cache)


@pytest.fixture(scope="session")
def toy(tmp_path_factory, shared_cache) -> Path:
    """The finished run of `TINY_TDEC`; its folder is never changed."""
    return start(tmp_path_factory.mktemp("toy"), shared_cache, base=TINY_TDEC)


@pytest.fixture
def begin(tmp_path, shared_cache) -> Callable[..., Path]:
    """Run the smallest configuration with changes; bases are shared by the whole session."""

    def begin(
        *overrides: str,
        output: Path = tmp_path,
        cache: Path = shared_cache,
        base: list[str] = QUICK,
    ) -> Path:
        return start(output, cache, *overrides, base=base)

    return begin


@pytest.fixture
def asked(monkeypatch) -> Asked:
    """What subjects are asked from now on."""
    return Asked(monkeypatch)


@pytest.fixture
def copied(quick, tmp_path) -> Path:
    """A copy of the finished run, to do as one likes with."""
    return shutil.copytree(quick, tmp_path / quick.name, ignore=shutil.ignore_patterns(".lock"))
