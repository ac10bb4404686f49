"""What only a process of its own can show: a user's package, an empty cache, a kill, exit codes."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.runs.running import command, same_numbers


@pytest.mark.slow
def test_a_fresh_process_with_an_empty_cache_gives_the_same_numbers(quick, tmp_path):
    arguments, environment = command(
        cache=tmp_path / "cache", output=tmp_path / "fresh", PYTHONHASHSEED="1"
    )
    subprocess.run(arguments, env=environment, check=True, capture_output=True)
    (fresh,) = (tmp_path / "fresh").iterdir()
    assert fresh.name == quick.name
    same_numbers(fresh, quick)


@pytest.mark.slow
def test_a_killed_base_training_leaves_no_entry(tmp_path):
    places = {"cache": tmp_path / "cache", "output": tmp_path / "out"}
    arguments, environment = command("model.finetuning.epochs=500", **places)
    process = subprocess.Popen(
        arguments, env=environment, start_new_session=True, stderr=subprocess.DEVNULL
    )
    models = tmp_path / "cache/models"
    deadline = time.time() + 120
    while not list(models.glob("*.unfinished/.staging")):
        assert time.time() < deadline
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    left = [p for p in models.iterdir() if p.is_dir() and not p.name.startswith(".")]
    left = [path for path in left if path.suffix != ".unfinished"]  # what goes on from there
    assert models.is_dir()
    assert left == []


FOREIGN = '''
from loku_exp.losses.scores import LossTerms

def squared(logits, labels):
    """The squared probability of the label; no closed-form gradient given."""
    return logits.softmax(-1).gather(1, labels[:, None]).squeeze(1) ** 2

def unlikely(forget, retain, *, strength: float = 1.0):
    return LossTerms(strength * forget.mean(squared), -retain.logprobs().mean())
'''


@pytest.fixture
def foreign(tmp_path, shared_cache):
    """Run the command line beside a package and a config folder of a user's own."""
    (tmp_path / "mypkg").mkdir()
    (tmp_path / "mypkg/__init__.py").write_text(FOREIGN)
    (tmp_path / "conf/loss").mkdir(parents=True)
    (tmp_path / "conf/loss/unlikely.yaml").write_text("_target_: mypkg.unlikely\nstrength: 2.0\n")

    def start(*overrides: str) -> subprocess.CompletedProcess:
        arguments, environment = command(
            "evaluation.curve=none",
            *overrides,
            cache=shared_cache,
            output=tmp_path / "out",
            PYTHONPATH=str(tmp_path),
        )
        return subprocess.run(arguments, env=environment, capture_output=True, text=True)

    return start


@pytest.mark.slow
def test_a_loss_of_a_foreign_package_runs_by_its_dotted_name(foreign, tmp_path):
    """By a yaml of one's own it runs in the README's example."""
    by_target = foreign("loss=ga", "loss._target_=mypkg.unlikely")
    assert by_target.returncode == 0, by_target.stderr
    (folder,) = (tmp_path / "out").iterdir()
    assert "mypkg.unlikely" in (folder / "config.yaml").read_text()


@pytest.mark.slow
def test_knobs_of_a_foreign_loss_are_checked(foreign, tmp_path):
    wrong = foreign("--config-dir", str(tmp_path / "conf"), "loss=unlikely", "loss.strenght=1")
    assert wrong.returncode == 1
    assert "did you mean 'loss.strength'?" in wrong.stderr
    wrong = foreign("loss._target_=mypkg.unlikely")
    assert "loss.retain_weight: mypkg.unlikely has no such knob" in wrong.stderr
    assert "~loss.retain_weight" in wrong.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_command_line_exit_codes(tmp_path, shared_cache):
    arguments, environment = command("lora.rnak=1", cache=shared_cache, output=tmp_path / "out")
    result = subprocess.run(arguments, env=environment, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr == "error: lora.rnak: no such key; did you mean 'lora.rank'?\n"
    assert not (tmp_path / "out").exists()


def test_help_fits_a_terminal():
    done = subprocess.run(
        [sys.executable, "-m", "loku_exp", "--help"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0
    assert "model: gemma_2b, " in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
