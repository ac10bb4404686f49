"""Fixtures of the whole suite. It needs no hub and no GPU; the real data only where it is at hand."""

import os
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
    """One cache for the session, so that bases are trained once."""
    return tmp_path_factory.mktemp("cache")
