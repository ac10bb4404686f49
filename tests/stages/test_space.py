"""A disk without room for what a run writes is named before the run."""

import re
import shutil
from types import SimpleNamespace

import pytest

from loku_exp.config.compose import compose_config
from loku_exp.errors import ConfigError
from loku_exp.run import run
from loku_exp.sweeps.plan import plan_jobs

SMALL = ["dataset=toy_tofu", "dataset.num_authors=4", "dataset.num_forget=1"]


@pytest.mark.parametrize(
    ("free", "said"),
    [
        (
            8_000,
            [
                "8.0 kB are free on this disk, and the run writes",
                "of weights (target)",
                "of weights (reference)",
                "of snapshots",
            ],
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


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """What the runs of a sweep say together of a disk with so many bytes free."""

    def plan(free, *jobs):
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
        places = [f"output_dir={tmp_path}/out", f"cache_dir={tmp_path}/cache"]
        overrides = [[*SMALL, *places, *job] for job in jobs]
        return plan_jobs(overrides, [compose_config(job) for job in overrides], None)

    return plan


def size_of(line, what):
    number, unit = re.search(rf"([\d.]+) (kB|MB) {re.escape(what)}", line).groups()
    return float(number) * {"kB": 1e3, "MB": 1e6}[unit]


def test_the_runs_of_a_sweep_are_counted_together(planned, tmp_path):
    """Each has room; all have not. Bases that runs share, and runs named twice, count once."""
    seeds = [["seed=0"], ["seed=1"], ["seed=2"]]
    with pytest.raises(ConfigError) as error:
        planned(0, seeds[0])
    (alone,) = error.value.problems
    assert "and the run writes" in alone
    needed = size_of(alone, "or more")
    assert len(planned(1.1 * needed, seeds[0])) == 1
    with pytest.raises(ConfigError) as error:
        planned(1.1 * needed, *seeds, seeds[0])
    (line,) = error.value.problems
    assert "and the 3 runs of this sweep together write" in line
    assert line.endswith("make room, or name a folder on another disk, or sweep over fewer values")
    for what, times in (("of weights (target)", 1), ("of snapshots", 3)):
        assert size_of(line, what) == pytest.approx(times * size_of(alone, what), rel=0.03)
    each = ("of snapshots", "of answers", "of the adapter")
    expected = needed + 2 * sum(size_of(alone, what) for what in each)
    assert size_of(line, "or more") == pytest.approx(expected, rel=0.03)
    assert len(planned(1.1 * expected, *seeds)) == 3
    assert not (tmp_path / "out").exists()


def test_the_model_that_full_fine_tuning_ships_is_counted(planned):
    with pytest.raises(ConfigError) as error:
        planned(0, ["lora=none"])
    (line,) = error.value.problems
    assert size_of(line, "of the model") == size_of(line, "of weights (target)")  # both in fp32


def test_finished_runs_of_a_sweep_need_no_room(planned):
    jobs = planned(10**9, ["seed=0"], ["seed=1"])
    for job in jobs:
        job.folder.mkdir(parents=True)
        (job.folder / "done.json").write_text("{}")
    assert [job.state for job in planned(0, ["seed=0"], ["seed=1"])] == ["was finished"] * 2
