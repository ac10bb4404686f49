"""A disk without room for what a run writes is named before the run."""

import shutil
from types import SimpleNamespace

import pytest

from loku_exp.config.compose import compose_config
from loku_exp.errors import ConfigError
from loku_exp.run import run

SMALL = ["dataset=toy_tofu", "dataset.num_authors=4", "dataset.num_forget=1"]


@pytest.mark.parametrize(
    ("free", "said"),
    [
        (
            8_000,
            ["8.0 kB are free on this disk", "of weights (target and reference)", "of snapshots ("],
        ),
        (2_000_000, ["2.0 MB are free on this disk"]),
    ],
)
def test_a_disk_that_is_too_small_is_one_line(free, said, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    places = [f"output_dir={tmp_path}/out", f"cache_dir={tmp_path}/cache"]
    with pytest.raises(ConfigError) as error:
        run(compose_config([*SMALL, *places]))
    (line,) = str(error.value).splitlines()
    assert line.startswith(f"cache_dir={tmp_path}/cache and output_dir={tmp_path}/out: ")
    assert all(part in line for part in said)
    assert not (tmp_path / "out").exists()


def test_other_mistakes_come_first(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    places = [f"output_dir={tmp_path}/out", f"cache_dir={tmp_path}/cache"]
    with pytest.raises(ConfigError, match=r"^lora\.rank=1000 exceeds layer"):
        run(compose_config([*SMALL, *places, "lora.rank=1000"]))
