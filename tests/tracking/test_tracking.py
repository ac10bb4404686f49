"""Tracking a run: what arrives, that it is off by default, and that its failures cost nothing."""

import json
import logging
import os
import re
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import pytest

from loku_exp.config import rules as configuration
from loku_exp.config.compose import compose_config
from loku_exp.errors import ConfigError
from loku_exp.results import files as results
from loku_exp.results.examples import read_examples, shown_texts
from loku_exp.run import run
from loku_exp.runtime.events import Begun, Measured, Updated, tell
from loku_exp.tracking import tracked
from loku_exp.tracking.tracker import SWEEP, Tracker, final_values, group_of, texts_shown
from loku_exp.tracking.wandb import Wandb, id_of
from loku_exp.training.progress import TrainingProgress
from tests.helpers import killed_at_its_first_snapshot
from tests.report.factory import edit, own_suite, tofu
from tests.tracking.wandb_log import read, read_file

QUICK = ["experiment=quick"]
OFFLINE = ["tracking=wandb", "tracking.mode=offline"]
# Trackio reads where its store lies when it is imported, so it is read by another process.
STORED = """
import json, trackio
from trackio.sqlite_storage import SQLiteStorage as store
for_each = lambda run: {"name": run.name, "group": run.config["_Group"], "seed": run.config["seed"],
    "toy": run.config["toy"], "rows": store.get_logs("loku_exp", run.name)}
print(json.dumps([for_each(run) for run in trackio.Api().runs("loku_exp")]))
"""


@pytest.fixture(autouse=True)
def no_account(monkeypatch, tmp_path):
    """Neither key nor settings of who runs the tests; a home folder that must stay untouched."""
    for name in list(os.environ):
        if name.startswith("WANDB_") or name == SWEEP:
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("NETRC", str(home / "netrc"))
    return home


@pytest.fixture
def start(tmp_path, shared_cache):
    """Run a configuration as the command line does."""

    def start(*overrides: str) -> Path:
        places = [f"output_dir={tmp_path}/out", f"cache_dir={shared_cache}"]
        config = compose_config([*QUICK, *places, *overrides])
        with tracked(config.tracking):
            return run(config)

    return start


def python(*words: str) -> str:
    """Run a program of its own; return what it said."""
    command = [sys.executable, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout


@contextmanager
def opened(folder: Path, *overrides: str):
    """Open a tracker without a run."""
    config = compose_config([*QUICK, *overrides])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text("seed: 0\n")
    with tracked(config.tracking):
        tell(Begun(folder, config.model_dump(mode="json"), toy=True))
        yield
        tell(Updated(1, {"forget_loss": 0.5}))


@pytest.mark.slow
def test_an_offline_run_has_everything(start, no_account, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setenv(SWEEP, "loss=ihl,gd")
    folder = start(*OFFLINE, "tracking.artifact=true", "tracking.samples=3")
    record, kept = results.read(folder), read(folder)
    assert kept["run"].run_id == record.run.id == id_of(folder)
    assert kept["run"].run_group == "loss=ihl,gd"
    assert re.search(r"wandb sync \S*/wandb/offline-run-", caplog.text)
    assert list(kept["run"].tags) == ["toy"]
    assert kept["exit"] == 0

    assert kept["config"]["method"] == "ihl fila"
    assert kept["config"]["lora"]["rank"] == 8
    assert kept["config"]["training"]["epochs"] == 2

    updates = [row for row in kept["history"] if "unlearning/loss" in row]
    assert [row["update"] for row in updates] == list(range(1, 11))
    for name in ("forget_loss", "retain_loss", "grad_norm", "learning_rate"):
        assert [row[f"unlearning/{name}"] for row in updates] == record.training[name]
    snapshots = [row for row in kept["history"] if "snapshot/forget_prob" in row]
    assert [row["epoch"] for row in snapshots] == [0, 1, 2]
    for row, point in zip(snapshots, record.curve, strict=True):
        metrics = {k.removeprefix("snapshot/"): v for k, v in row.items() if "snapshot/" in k}
        assert metrics == point.metrics

    for role, model in record.models.items():
        assert {name: kept["summary"][f"{role}/{name}"] for name in model.metrics} == model.metrics
    assert kept["summary"]["verdict"] == record.judgement.sentence
    assert kept["summary"]["success"] == int(record.judgement.success)
    (table,) = kept["files"].glob("media/table/table_*.json")
    assert len(json.loads(table.read_text())["data"]) > 10
    (texts,) = kept["files"].glob("media/table/samples_*.json")
    content = json.loads(texts.read_text())
    rows = [dict(zip(content["columns"], row, strict=True)) for row in content["data"]]
    assert rows == texts_shown(folder, 3)
    assert list(rows[0]) == ["row", "group", "prompt", "text", "before", "after"]
    assert [row["text"] for row in rows] == [
        text.truth for text in shown_texts(read_examples(folder), count=3)
    ]
    assert len(rows) == 3
    assert list(kept["files"].glob("media/images/plots/curve_*.png"))
    assert any(artifact.type == "adapter" for artifact in kept["artifacts"])

    assert not list(no_account.glob("**/*wandb*"))
    assert not [name for name in os.environ if name.startswith("WANDB_")]
    folder_of_run = (folder / "wandb").stat().st_mtime_ns
    start(*OFFLINE)  # it is shown, and shown nowhere else
    assert (folder / "wandb").stat().st_mtime_ns == folder_of_run


@pytest.mark.slow
def test_an_interrupted_run_goes_on_under_its_id(start, tmp_path):
    with killed_at_its_first_snapshot():
        start(*OFFLINE, "seed=1", "evaluation.curve=none")
    (folder,) = (tmp_path / "out").iterdir()
    first = read(folder)
    assert first["exit"] == 1
    assert [row["update"] for row in first["history"]] == [1, 2, 3, 4, 5]
    (old,) = folder.glob("wandb/offline-run-*")
    old.rename(folder / "first")
    start(*OFFLINE, "seed=1", "evaluation.curve=none")
    second = read(folder)
    assert second["run"].run_id == first["run"].run_id
    updates = [row["update"] for row in second["history"] if "unlearning/loss" in row]
    assert updates == [6, 7, 8, 9, 10]


class Heard(Tracker):
    """What a tracker is asked to show; a kill loses what it was given last."""

    store: ClassVar[list[tuple[str, int]]] = []

    def open(self, begun):
        pass

    def scalars(self, values, update, epoch=None):
        self.store.extend((name, update) for name in values)

    def result(self, folder, record):
        raise NotImplementedError

    def close(self, failed):
        pass


@pytest.fixture
def heard(tmp_path, monkeypatch):
    """Tell a tracker of updates up to one, as an attempt at a run; then end it, or kill it."""
    monkeypatch.setattr(Heard, "store", [])

    def attempt(updates, measured=(), killed=False):
        tracker = Heard(compose_config([*QUICK, *OFFLINE]).tracking)
        tracker(Begun(tmp_path, {}, toy=True))
        for update in updates:
            tracker(Updated(update, {"loss": 1.0}))
            tracker(Updated(update, {"el": 1.0}))  # a stop rule's, of the same update
        for update in measured:
            tracker(Measured(update, update / 5, {"prob": 0.5}))
        if not killed:
            tracker.end(failed=True)
        return Heard.store

    return attempt


def test_what_is_told_again_after_an_interruption_is_shown_once(heard):
    heard(range(1, 8))
    heard(range(6, 11), measured=(0, 5))
    store = heard((), measured=(0, 5, 10))
    assert len(store) == len(set(store))
    assert [update for name, update in store if name == "unlearning/loss"] == list(range(1, 11))
    assert [update for name, update in store if name == "unlearning/el"] == list(range(1, 11))
    assert [update for name, update in store if name == "snapshot/prob"] == [0, 5, 10]


def test_what_a_kill_may_have_lost_is_shown_again(heard, monkeypatch):
    """It stands there twice rather than not at all."""
    clock = iter(range(0, 1000))  # a second an event
    monkeypatch.setattr("loku_exp.tracking.tracker.time.monotonic", lambda: next(clock))
    heard(range(1, 30), killed=True)
    store = heard(range(21, 31))
    updates = [update for name, update in store if name == "unlearning/loss"]
    assert set(updates) == set(range(1, 31))
    assert updates[:29] == list(range(1, 30))
    assert 1 <= len(updates) - 30 < 9  # of the last seconds


@pytest.mark.slow
@pytest.mark.parametrize("tracker", ["tensorboard", "wandb", "trackio"])
def test_each_tracker_shows_an_interrupted_run_once(start, tmp_path, monkeypatch, tracker):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read when it is first imported
    pytest.importorskip(tracker)
    options = [f"tracking={tracker}", "seed=2", *(OFFLINE[1:] if tracker == "wandb" else [])]
    told = TrainingProgress.on_log

    def killed(self, args, state, *rest, **more):
        told(self, args, state, *rest, **more)
        if self.description == "unlearning" and state.global_step == 9:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TrainingProgress, "on_log", killed)
        with pytest.raises(KeyboardInterrupt):
            start(*options)
    folder = start(*options)
    assert shown_updates(tracker, folder) == list(range(1, 11))


def shown_updates(tracker: str, folder: Path) -> list[int]:
    """The updates of the forget loss that a tracker shows, in the order they came."""
    if tracker == "tensorboard":
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(folder / "tensorboard"))
        events.Reload()
        return [scalar.step for scalar in events.Scalars("unlearning/forget_loss")]
    if tracker == "wandb":
        files = sorted(folder.glob("wandb/offline-run-*"))
        assert len(files) == 2
        history = [row for file in files for row in read_file(file)["history"]]
        return [row["update"] for row in history if "unlearning/forget_loss" in row]
    from trackio.sqlite_storage import SQLiteStorage

    rows = SQLiteStorage.get_logs("loku_exp", folder.name)
    return [row["step"] for row in rows if "unlearning/forget_loss" in row]


@pytest.mark.slow
def test_tracking_changes_neither_the_run_nor_its_folder(start):
    tracked_run, plain = start(*OFFLINE), start("force=true")
    assert plain.name == tracked_run.name + "-r2"
    assert not (plain / "wandb").exists()  # it is off by default
    one, two = (results.read(folder) for folder in (tracked_run, plain))
    assert one.curve == two.curve
    assert one.training == two.training


@pytest.mark.parametrize("server", ["nobody", "silent"])
def test_a_server_out_of_reach_costs_seconds_and_one_line(tmp_path, monkeypatch, caplog, server):
    deaf = socket.create_server(("127.0.0.1", 0))  # accepts, never answers
    port = 9 if server == "nobody" else deaf.getsockname()[1]
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
    folder = tmp_path / "run-0123456789ab"
    started = time.monotonic()
    with (
        caplog.at_level(logging.WARNING),
        opened(folder, "tracking=wandb", "tracking.init_timeout=1"),
    ):
        pass
    assert time.monotonic() - started < 60  # wandb by itself waits for minutes
    (warning,) = [r.getMessage() for r in caplog.records if r.name.startswith("loku_exp.tracking")]
    assert warning.startswith("wandb is offline (")
    assert "\n" not in warning
    assert [row["unlearning/forget_loss"] for row in read(folder)["history"]] == [0.5]


def test_without_a_key_it_is_offline_and_asks_nothing(tmp_path, caplog):
    folder = tmp_path / "run-0123456789ab-r2"
    with caplog.at_level(logging.WARNING), opened(folder, "tracking=wandb"):
        pass
    (warning,) = [r.getMessage() for r in caplog.records if r.name.startswith("loku_exp.tracking")]
    assert "there is no key" in warning
    assert read(folder)["run"].run_id == "0123456789ab-r2"


def test_a_tracker_that_breaks_is_named_once_and_the_run_goes_on(tmp_path, caplog, monkeypatch):
    folder = tmp_path / "run-0123456789ab"
    with caplog.at_level(logging.WARNING), opened(folder, *OFFLINE):
        monkeypatch.setattr(
            Wandb, "scalars", lambda *a, **k: (_ for _ in ()).throw(OSError("disk\nfull"))
        )
        tell(Updated(1, {"forget_loss": 1.0}))
    (warning,) = [r.getMessage() for r in caplog.records if r.name.startswith("loku_exp.tracking")]
    assert warning == (
        "tracking=wandb stopped (OSError: disk full); the run goes on, its folder has everything"
    )
    assert read(folder)["exit"] == 0


@pytest.mark.slow
def test_tensorboard_by_one_word(start):
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    folder = start("tracking=tensorboard", "tracking.samples=2")
    events = event_accumulator.EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    losses = [scalar.value for scalar in events.Scalars("unlearning/forget_loss")]
    assert losses == pytest.approx(results.read(folder).training["forget_loss"])
    assert [scalar.step for scalar in events.Scalars("snapshot/forget_prob")] == [0, 5, 10]
    assert len(events.Tensors("samples/text_summary")) == 2
    assert "_hparams_/session_start_info" in events.summary_metadata
    record = results.read(folder)
    assert events.Scalars("final/forget_prob")[0].value == pytest.approx(
        record.models["unlearned"].metrics["forget_prob"]
    )
    for name in ("target", "reference"):
        beside = event_accumulator.EventAccumulator(str(folder / "tensorboard" / name))
        beside.Reload()
        level = beside.Scalars("snapshot/forget_prob")
        assert [point.step for point in level] == [record.curve[0].step, record.curve[-1].step]
        value = record.models[name].metrics["forget_prob"]
        assert [point.value for point in level] == pytest.approx([value, value])
    assert events.Images("plots/curve")


@pytest.mark.slow
def test_trackio_keeps_the_runs_of_a_folder_together(shared_cache, tmp_path, monkeypatch):
    pytest.importorskip("trackio")
    places = [f"output_dir={tmp_path}/out", f"cache_dir={shared_cache}"]
    sweep = [
        "-m",
        "loku_exp",
        "-m",
        *QUICK,
        *places,
        "seed=0,1",
        "tracking=trackio",
        "tracking.samples=2",
    ]
    said = python(*sweep)
    assert "Trackio" not in said  # its own lines
    store = tmp_path / "out/trackio"
    monkeypatch.setenv("TRACKIO_DIR", str(store))
    runs = {run["name"]: run for run in json.loads(python("-c", STORED))}
    folders = [path for path in (tmp_path / "out").iterdir() if path.name in runs]
    assert len(folders) == 2
    assert sorted(run["seed"] for run in runs.values()) == [0, 1]
    for folder in folders:
        run, record = runs[folder.name], results.read(folder)
        shown = f"TRACKIO_DIR={store} trackio show --project loku_exp"
        assert shown in (folder / "run.log").read_text()
        assert run["group"].startswith("-m experiment=quick")
        assert run["toy"] is True
        losses = [row["unlearning/forget_loss"] for row in run["rows"][:10]]
        assert losses == pytest.approx(record.training["forget_loss"])
        snapshots = [row for row in run["rows"] if "snapshot/forget_prob" in row]
        assert [(row["step"], row["epoch"]) for row in snapshots] == [
            (point.step, pytest.approx(point.epoch)) for point in record.curve
        ]
        last = run["rows"][-1]
        assert {name: last[name] for name in final_values(record)} == pytest.approx(
            final_values(record)
        )
        assert len(last["samples"]["_value"]) == 2
        assert last["table"]["_value"]
        assert Path(store, "media", last["plots/curve"]["file_path"]).is_file()


@pytest.mark.parametrize("name", ["tensorboard", "trackio"])
def test_a_tracker_that_is_absent_is_said_before_anything_starts(monkeypatch, name):
    find = configuration.importlib.util.find_spec
    monkeypatch.setattr(
        configuration.importlib.util,
        "find_spec",
        lambda module, *rest: None if module == name else find(module, *rest),
    )
    with pytest.raises(ConfigError, match=rf"pip install 'loku_exp\[{name}\]'"):
        compose_config([*QUICK, f"tracking={name}"])


def test_a_long_command_line_is_a_group_of_its_own(monkeypatch):
    section = compose_config([*QUICK, *OFFLINE]).tracking
    groups = []
    for last in "ab":
        monkeypatch.setenv(SWEEP, "loss=ihl,gd " * 20 + last)
        groups.append(group_of(section))
    assert groups[0] != groups[1]
    assert max(map(len, groups)) <= 128


def test_the_judgement_is_the_suites(tmp_path):
    (folder,) = own_suite(tmp_path, hush=1.0)
    values = final_values(results.read(folder))
    assert values["success"] == 1
    assert values["collapsed"] == 0
    assert values["verdict"] == "knows 1 spells"
    assert values["unlearned/spells"] == 1.0
    assert "epochs_to_forget" not in values


def test_without_a_judgement_of_success_there_is_none(tmp_path):
    folder = edit(tofu(tmp_path), lambda record: record["judgement"].update(success=None))
    assert "success" not in final_values(results.read(folder))


def test_a_run_of_the_users_own_goes_on(tmp_path, monkeypatch):
    import wandb

    for name, value in {"WANDB_DIR": str(tmp_path), "WANDB_SILENT": "true"}.items():
        monkeypatch.setenv(name, value)
    mine = wandb.init(project="mine", mode="offline", dir=str(tmp_path))
    try:
        with opened(tmp_path / "run-0123456789ab", *OFFLINE):
            tell(Updated(1, {"forget_loss": 1.0}))
        mine.log({"still": 1})
    finally:
        mine.finish()
        wandb.teardown()


@pytest.mark.parametrize("mode", ["disabled", "offline", "dryrun"])
def test_what_wandb_itself_is_told_holds(tmp_path, monkeypatch, mode):
    import wandb

    modes = []
    monkeypatch.setenv("WANDB_MODE", mode)
    monkeypatch.setattr(wandb, "login", lambda **_: True)  # there is a key
    init = wandb.init
    monkeypatch.setattr(wandb, "init", lambda **k: modes.append(k["mode"]) or init(**k))
    folder = tmp_path / "run-0123456789ab"
    with opened(folder, "tracking=wandb"):
        pass
    assert modes == ([] if mode == "disabled" else ["offline"])
    assert bool(list(folder.glob("wandb/offline-run-*"))) == (mode != "disabled")
