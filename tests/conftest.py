"""Fixtures of the whole suite. It needs no hub and no GPU; the real data only where it is at hand."""

import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("busy machines", deadline=None)
settings.load_profile("busy machines")


@pytest.fixture(scope="session")
def loku_data() -> Path:
    """The folder of the real TOFU, tokenizers and published logs, named by LOKU_DATA."""
    folder = os.environ.get("LOKU_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("LOKU_DATA does not name a folder with the real data")
    return Path(folder).resolve()


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for the session, and all its workers, so that bases are trained once."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "shared_cache"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session", autouse=True)
def in_one_process() -> Iterator[None]:
    """Make target and reference one after the other: two more interpreters take longer to start.

    Side by side they are made by the tests that start the program as a process.
    """
    from loku_exp.stages import bases

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bases, "_make_side_by_side", lambda *_: None)
        yield


@pytest.fixture(autouse=True)
def no_logging_left() -> None:
    """Take away what a test or a fixture set up that ran the program here: its stream is closed since."""
    from loku_exp.runtime.logs import AboveBars

    root = logging.getLogger()
    left = [handler for handler in root.handlers if isinstance(handler, AboveBars)]
    if left:
        root.handlers[:] = [handler for handler in root.handlers if handler not in left]
        root.setLevel(logging.WARNING)
        logging.captureWarnings(False)


@pytest.fixture
def own_logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let a test set logging up as a program does; what pytest has is there again afterwards."""
    root = logging.getLogger()
    level = root.level
    monkeypatch.setattr(root, "handlers", [])
    with warnings.catch_warnings():
        yield
    root.setLevel(level)
    logging.captureWarnings(False)
