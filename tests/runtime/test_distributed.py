"""Several processes give the numbers of one, write once, and refuse what they cannot share."""

import logging
import os
import re
import subprocess
import sys

import pytest
import torch
from accelerate.data_loader import BatchSamplerShard
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import BatchSampler, SequentialSampler

from loku_exp.__main__ import checked
from loku_exp.config.compose import compose_config
from loku_exp.errors import ConfigError, DataError, TrainingError
from loku_exp.results import files as results
from loku_exp.results.folder import claimed
from loku_exp.results.terminal import show
from loku_exp.run import run
from loku_exp.runtime import distributed as parallel
from loku_exp.runtime.logs import Stopwatch, log_file, start_logging
from loku_exp.runtime.programs import ending
from loku_exp.stages.begin import begin_run
from loku_exp.training.schedule import Plan
from tests.helpers import TINY_TDEC

QUICK = ["experiment=quick", "evaluation.curve=none", "device=cpu"]
FULL = [*QUICK, "training.micro_batch_size=2"]  # 8 examples an update: four micro-batches
FULL += ["lora=none", "training.reduction=update"]
EXTRACTION = [*TINY_TDEC, "training.stop.el=0.99", "training.stop.ma=0.99"]
EXTRACTION += ["training.micro_batch_size=1", "device=cpu"]


@pytest.fixture
def two(monkeypatch):
    """As if torchrun had started two processes, this being the first."""
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)


def torchrun(*overrides: str) -> subprocess.CompletedProcess:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    arguments = [*launcher, "--nproc-per-node", "2", "-m", "loku_exp", *overrides]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=900)


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [FULL, EXTRACTION], ids=["full", "tdec"])
def test_two_processes_give_the_parameters_of_one(tmp_path, shared_cache, overrides):
    cache = f"cache_dir={shared_cache}"
    one = run(compose_config([*overrides, cache, f"output_dir={tmp_path}/one"]))
    finished = torchrun(*overrides, cache, f"output_dir={tmp_path}/two")
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert finished.stdout.count("verdict:") == 1
    two = tmp_path / "two" / one.name  # the same configuration has the same id
    said = (two / "run.log").read_text()
    for text in (finished.stderr, said):
        assert text.count("evaluating unlearned\n") == 1
        assert text.count("initialising the adapter with fila") == (0 if overrides is FULL else 1)

    ours, theirs = results.read(one), results.read(two)
    assert (ours.machine.processes, theirs.machine.processes) == (1, 2)
    for name, metrics in theirs.models.items():
        assert metrics.metrics == pytest.approx(ours.models[name].metrics, rel=1e-3, abs=1e-4)
    checks = [[c["forgotten"] for c in r.training.get("checks", [])] for r in (ours, theirs)]
    assert checks[0] == checks[1]
    for name in ("forget_loss", "retain_loss", "grad_norm", "learning_rate"):
        assert theirs.training[name] == pytest.approx(ours.training[name], rel=1e-4, abs=1e-6)
    assert theirs.cost["flops"]["training"] == ours.cost["flops"]["training"]
    assert theirs.training.get("epochs_to_forget") == ours.training.get("epochs_to_forget")

    snapshots = sorted(path.name for path in one.glob("snapshots/*"))
    assert snapshots == sorted(path.name for path in two.glob("snapshots/*"))
    file = next((one / "snapshots" / snapshots[-1]).glob("*model.safetensors")).relative_to(one)
    parameters, others = load_file(one / file), load_file(two / file)
    assert parameters.keys() == others.keys()
    for name, parameter in parameters.items():
        torch.testing.assert_close(others[name], parameter, atol=1e-6, rtol=0)
    assert not (two / ".staging").exists()
    assert len(list(two.glob(f"snapshots/{snapshots[-1]}/rng_state*"))) == 2


@pytest.mark.slow
def test_a_mistake_ends_all_processes_and_is_said_once(tmp_path):
    finished = torchrun("lora.rnak=1", f"output_dir={tmp_path}/out")
    assert finished.returncode != 0
    assert finished.stderr.count("error: lora.rnak: no such key") == 1
    assert not (tmp_path / "out").exists()


def test_an_update_has_the_examples_it_has_with_one_process():
    plan = Plan(updates=3, updates_per_epoch=1, batch_size=8, micro_batch_size=2, processes=2)
    assert plan.accumulation == 2
    batches = BatchSampler(SequentialSampler(range(plan.num_items)), 2, drop_last=False)
    shards = [list(BatchSamplerShard(batches, num_processes=2, process_index=k)) for k in (0, 1)]
    for update in range(plan.updates):
        steps = range(update * plan.accumulation, (update + 1) * plan.accumulation)
        seen = sorted(row for shard in shards for step in steps for row in shard[step])
        assert seen == list(range(8 * update, 8 * update + 8))


def test_an_update_that_cannot_be_shared_is_refused():
    recipe = compose_config([*QUICK, "training.micro_batch_size=4"]).training
    assert Plan.of(recipe, 20, processes=2).accumulation == 1
    with pytest.raises(
        TrainingError, match="micro_batch_size=4: 3 processes cannot share an update"
    ):
        Plan.of(recipe, 20, processes=3)


def test_an_update_of_the_whole_set_is_split_as_the_processes_need():
    recipe = compose_config(EXTRACTION).training.model_copy(update={"micro_batch_size": 8})
    for rows, processes, micro in ((12, 1, 6), (12, 2, 6), (12, 4, 3), (6, 2, 3)):
        plan = Plan.of(recipe, rows, processes)
        assert plan.micro_batch_size == micro
        assert plan.accumulation * micro * processes == rows
    with pytest.raises(TrainingError, match="2 processes cannot share an update of 7"):
        Plan.of(recipe, 7, processes=2)


def test_no_sweep_under_torchrun(two):
    with pytest.raises(ConfigError, match="start torchrun once a run, without -m"):
        checked(["-m", "loss=ihl,gd"])


def test_no_device_by_number_under_torchrun(two):
    with pytest.raises(ConfigError, match="device=cuda:1: under torchrun each process takes"):
        compose_config(["device=cuda:1"])


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["unlearn=false"], "unlearn=false trains nothing; start it without torchrun"),
        (["method=prompt_corruption"], "method=prompt_corruption trains nothing; start it without"),
        (
            ["attacks=[relearn]"],
            "attacks=[relearn]: one process makes them; leave them out under torchrun, and add them to "
            "the finished run without it: python -m loku_exp.attack RUN relearn",
        ),
    ],
)
def test_what_processes_cannot_share_is_refused(two, tmp_path, overrides, said):
    places = [f"output_dir={tmp_path}/out", f"cache_dir={tmp_path}/cache"]
    with pytest.raises(ConfigError, match=re.escape(said)):
        run(compose_config([*QUICK, *places, *overrides]))
    assert not (tmp_path / "out").exists()


@pytest.fixture
def second(two, monkeypatch):
    """As if this were the second of two processes."""
    monkeypatch.setenv("RANK", "1")


def test_the_second_process_is_silent_until_something_fails(second, own_logging, tmp_path, capsys):
    start_logging()
    with log_file(tmp_path / "run.log"):
        logging.getLogger("loku_exp").info("going on")
        logging.getLogger("loku_exp").error("broken")
    assert capsys.readouterr().err == "broken\n"
    assert "going on" not in (tmp_path / "run.log").read_text()
    with pytest.raises(ZeroDivisionError), log_file(tmp_path / "run.log"):
        _ = 1 / 0
    assert "ZeroDivisionError" in (tmp_path / "run.log").read_text()


def test_the_second_process_writes_nothing_and_shows_nothing(second, tmp_path, capsys):
    begin_run(tmp_path, compose_config(QUICK))
    watch = Stopwatch()
    watch.keep_in(tmp_path / "seconds.json")
    with watch("bases"):
        pass
    show(None, tmp_path)
    with claimed(tmp_path / "run"):
        pass
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("error", "said"),
    [(ConfigError("a"), ""), (DataError("a"), ""), (TrainingError("a"), "error: a\n")],
)
def test_what_all_processes_find_is_said_by_the_first(second, capsys, error, said):
    with pytest.raises(SystemExit), ending():
        raise error
    assert capsys.readouterr().err == said


class Wrapper(nn.Module):
    """Prepares something in its forward pass, as DistributedDataParallel does."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module
        self.inside = False

    def forward(self, *arguments):
        self.inside = True
        found = self.module(*arguments)
        self.inside = False
        return found


@pytest.mark.parametrize("own", [False, True])
def test_a_loss_runs_inside_the_forward_pass_of_the_wrapper(own):
    model = nn.Linear(2, 2)
    if own:
        model.forward = lambda x: x + 1  # as autocast leaves it
    wrapper, x = Wrapper(model), torch.ones(1, 2)
    before = vars(model).get("forward")

    def loss() -> torch.Tensor:
        assert wrapper.inside
        return model(x).sum() + model(2 * x).sum()

    expected = (model(x) + model(2 * x)).sum()
    torch.testing.assert_close(parallel.through(wrapper, model, loss), expected)
    assert vars(model).get("forward") is before
    assert torch.equal(parallel.through(model, model, lambda: model(x)), model(x))

    def failing() -> torch.Tensor:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        parallel.through(wrapper, model, failing)
    assert vars(model).get("forward") is before


def test_one_process_needs_no_others():
    assert (parallel.size(), parallel.rank(), parallel.local_rank()) == (1, 0, 0)
    assert parallel.of_first(lambda: 3) == 3
    with parallel.connected(), parallel.first_before_others(), parallel.first_alone() as first:
        assert first


def test_a_process_of_its_own_is_alone(two):
    assert parallel.leave()
    assert parallel.size() == 1
    assert not parallel.leave()
