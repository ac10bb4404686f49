"""Which runs a sweep consists of."""

import importlib.util

import pytest

from loku_exp.config import grid
from loku_exp.config.command_line import read_command_line
from loku_exp.config.compose import compose_all, compose_config
from loku_exp.errors import ConfigError

PAIRS = "pairs=[{init: vanilla, lora.rank: 8}, {lora: none, init: none}]"


def test_the_grid_is_a_product_in_order_and_the_last_key_varies_fastest():
    assert grid.expand(["a=1,2", "b=x", "c=range(3,5)"], {}, []) == [
        ["a=1", "b=x", "c=3"],
        ["a=1", "b=x", "c=4"],
        ["a=2", "b=x", "c=3"],
        ["a=2", "b=x", "c=4"],
    ]


def test_the_command_line_wins_over_the_grid_of_a_preset():
    jobs = grid.expand(
        ["seed=7", "loss=gd,ihl"], {"seed": "0,1,2", "loss": "ga", "init": "x,y"}, []
    )
    assert jobs == [
        ["seed=7", f"loss={loss}", f"init={init}"] for loss in ("gd", "ihl") for init in "xy"
    ]


def test_pairs_are_crossed_with_the_rest():
    assert grid.expand(["seed=0,1", PAIRS], {}, [{"never": 1}]) == [
        ["seed=0", "init=vanilla", "lora.rank=8"],
        ["seed=1", "init=vanilla", "lora.rank=8"],
        ["seed=0", "lora=none", "init=none"],
        ["seed=1", "lora=none", "init=none"],
    ]


def test_pairs_of_a_preset_keep_their_types():
    entry = {"a.b": None, "c": True, "d": 1e-4, "e": "4", "f": "x y", "g": [1, "z"], "h": "it's"}
    (job,) = grid.expand([], {}, [entry])
    read = {o.get_key_element(): o.value() for o in grid.parse_overrides(job)}
    assert read == entry


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["pairs=3"], "not a list of entries"),
        (["init=fila", PAIRS], "init: given in pairs and beside them"),
        (["seed=interval(0,1)"], "a sweep needs values: seed=a,b"),
        (["seed=[1"], "seed=[1"),
    ],
)
def test_what_is_no_grid_is_refused(overrides, said):
    with pytest.raises(ConfigError) as raised:
        grid.expand(overrides, {}, [])
    assert said in str(raised.value)


def test_a_label_is_what_differs():
    jobs = [["a=1", "b=2", "c=3"], ["a=1", "b=4", "d=5"]]
    assert [grid.job_label(job, jobs) for job in jobs] == ["b=2 c=3", "b=4 d=5"]
    assert grid.job_label(["a=1"], [["a=1"]]) == "a=1"


def test_a_preset_brings_its_grid():
    jobs = read_command_line(["-m", "experiment=toy_grid", "seed=5", "loss=gd,ihl"]).jobs()
    assert len(jobs) == 4
    assert {job[0] for job in jobs} == {"seed=5"}


@pytest.mark.parametrize(
    "swept", ["loss=npo,simnpo", "pairs=[{loss: npo}, {loss: simnpo}]"], ids=["grid", "pairs"]
)
def test_a_key_of_what_is_swept_over_does_not_lose_the_grid_of_a_preset(swept):
    """`loss.beta` is no key of the default loss: composed without the sweep the grid was empty."""
    jobs = read_command_line(["-m", "experiment=toy_grid", swept, "loss.beta=0.2"]).jobs()
    assert len(jobs) == 3 * 2 * 2
    assert {text for job in jobs for text in job if text.startswith("seed=")} == {
        "seed=0", "seed=1", "seed=2"
    }  # fmt: skip


def test_a_plus_before_a_key_changes_no_grid():
    """`++init` stood beside pairs that beat it, and one run took `+pairs` without a word."""
    for plus in ("+", "++"):
        jobs = grid.expand(["seed=0,1", f"{plus}{PAIRS}"], {}, [])
        assert jobs == grid.expand(["seed=0,1", PAIRS], {}, [])
        with pytest.raises(ConfigError, match="init: given in pairs and beside them"):
            grid.expand([f"{plus}init=fila", PAIRS], {}, [])
        assert grid.expand([f"{plus}seed=7"], {"seed": "0,1"}, []) == [[f"{plus}seed=7"]]
        with pytest.raises(ConfigError, match="add -m"):
            read_command_line([f"{plus}{PAIRS}"]).jobs()


def test_pairs_that_are_typed_win_over_the_grid_of_a_preset():
    """But not over a key that is typed beside them."""
    pairs = "pairs=[{init: fila, loss: ihl}, {init: vanilla, loss: gd}]"
    preset = {"seed": "0,1", "loss": "ga,gd,ihl", "init": "vanilla,fila"}
    jobs = grid.expand([pairs], preset, [])
    assert sorted(map(sorted, jobs)) == sorted(
        sorted([f"seed={seed}", f"init={init}", f"loss={loss}"])
        for seed in (0, 1)
        for init, loss in (("fila", "ihl"), ("vanilla", "gd"))
    )
    with pytest.raises(ConfigError, match="init: given in pairs and beside them"):
        grid.expand([pairs, "init=fila"], preset, [])
    with pytest.raises(ConfigError, match="init: given in pairs and beside them"):
        grid.expand([], preset, [{"init": "fila"}])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([PAIRS], "add -m (--multirun)"),
        (["-m", "experiment=quick,toy_grid"], "experiment=toy_grid: it has a grid of its own"),
        (["-m", "experiment=glob(toy_*)"], "experiment=glob(toy_*): name the values instead"),
        (["-m", "experiment=interval(0,1)"], "a sweep needs values: experiment=a,b"),
        (["-m", "hydra/launcher=joblib"], "hydra/launcher: folders and sweeps are loku_exp's own"),
        (["-m", "hydra.sweeper.max_batch_size=2"], "hydra.sweeper.max_batch_size: folders and sweeps are"),
        (["-m", "hydra.sweep.dir=x"], "use output_dir="),
        (["hydra.job.chdir=true"], "hydra.job.chdir: nothing of a run reads this"),
        (["+hydra.job.env_set.X=1"], "hydra.job.env_set.X: nothing of a run"),
        (["-m", "hydra/job_logging=default"], "hydra/job_logging: nothing of a run reads"),
    ],
)  # fmt: skip
def test_what_cannot_be_swept_is_refused(arguments, said):
    with pytest.raises(ConfigError) as raised:
        read_command_line(arguments).jobs()
    assert said in str(raised.value)


def test_what_is_read_of_hydras_is_taken():
    line = [
        "-m",
        "experiment=toy_grid",
        "hydra.sweeper.params.loss='ga,gd'",
        "~hydra.sweeper.params.seed",
    ]
    assert len(read_command_line(line).jobs()) == 4


def test_every_job_is_composed_and_its_mistakes_named_once():
    jobs = grid.expand(["seed=0,1", "lora.rnak=3", "loss=ihll"], {}, [])
    with pytest.raises(ConfigError) as raised:
        compose_all(jobs)
    assert len(raised.value.problems) == 2
    config = compose_all(grid.expand(["loss=gd", PAIRS], {}, []))[1]
    assert (config.lora.kind, config.init) == ("full", None)


def test_a_launcher_without_its_package_names_the_extra(monkeypatch):
    find = importlib.util.find_spec
    absent = lambda name: None if name == "submitit" else find(name)  # noqa: E731
    monkeypatch.setattr("importlib.util.find_spec", absent)
    with pytest.raises(ConfigError, match=r"pip install 'loku_exp\[slurm\]'"):
        compose_config(["launcher=slurm"])
