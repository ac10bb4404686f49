"""Runs of a sweep: skipped, failed, killed, held by others; on every launcher. Stubs stand in for runs."""

import multiprocessing
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock

from benchmarks.toy_sweep import check
from loku_exp.config.compose import compose_config
from loku_exp.errors import ConfigError, HeldError, StorageError, TrainingError
from loku_exp.evaluation.catalogue import Judgement
from loku_exp.evaluation.tofu.judge import CATALOGUE
from loku_exp.results import folder as runs
from loku_exp.results.folder import HELD
from loku_exp.results.terminal import plain_console
from loku_exp.sweeps import plan
from loku_exp.sweeps import sweep as sweeps
from loku_exp.sweeps import table as tables
from loku_exp.sweeps.jobs import Ending, Job, ending_of
from loku_exp.sweeps.launchers import InProcess, Processes, launcher_of, visible_devices
from loku_exp.sweeps.plan import plan_jobs
from loku_exp.sweeps.slurm import Cluster
from loku_exp.sweeps.sweep import sweep, work_on
from loku_exp.sweeps.table import header_and_cells
from tests.helpers import alive, until
from tests.results.records import record_of

FINISH = "from pathlib import Path; Path({folder!r}, 'done.json').write_text('{{}}')"
WAIT = "import time; time.sleep(60)"


@dataclass
class Stub(Job):
    """A job whose process runs a given line of Python."""

    code: str = FINISH

    @property
    def command(self):
        return [sys.executable, "-S", "-c", self.code.format(folder=str(self.folder))]


@pytest.fixture
def job(tmp_path):
    config = SimpleNamespace(on_error="continue", attacks={}, page=False)

    def job(name: str, code: str = FINISH, folder=None, **more) -> Stub:
        return Stub(name, [], None, config, folder or tmp_path / name, code=code, **more)

    return job


def worked(jobs, launcher) -> dict[str, str]:
    return {job.label: job.error or job.state for job in work_on(jobs, launcher)}


def two() -> Processes:
    return Processes([{}, {}])


def test_a_failed_and_a_killed_run_do_not_end_the_others(job):
    jobs = [
        job("killed", "import os; os.kill(os.getpid(), 9)"),
        job("mistake", "import sys; print('error: a'); print('error: b'); sys.exit(1)"),
        job("broken", "1 / 0"),
        job("silent", "pass"),
        job("good"),
    ]
    assert worked(jobs, two()) == {
        "killed": "killed by SIGKILL; most often memory ran out",
        "mistake": "a; b",
        "broken": "exit code 1: ZeroDivisionError: division by zero",
        "silent": "ended without a result and without an error",
        "good": "finished",
    }
    assert "Traceback" in (jobs[2].folder / "console.log").read_text()


def test_as_many_run_at_the_same_time_as_there_are_slots(job, tmp_path):
    code = "import os, pathlib; pathlib.Path({folder!r}, 'began').touch()\n" + WAIT
    work = work_on([job(name, code) for name in "abc"], two())
    with pytest.raises(TimeoutError):
        _next_within(work, seconds=2)
    assert len(list(tmp_path.glob("*/began"))) == 2


def _next_within(work, seconds):
    def give_up(*_):
        raise TimeoutError

    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        return next(work)
    finally:
        signal.alarm(0)


def test_closing_a_sweep_ends_its_processes(job, tmp_path):
    code = f"import os, pathlib; pathlib.Path({{folder!r}}, 'pid').write_text(str(os.getpid()))\n{WAIT}"
    jobs = [job("good"), job("long", code)]
    work = work_on(jobs, two())
    assert next(work).label == "good"
    pid_file = tmp_path / "long/pid"
    until(lambda: pid_file.is_file() and pid_file.read_text())
    work.close()
    assert not alive(int(pid_file.read_text()))
    assert jobs[1].state == "interrupted"


def test_each_run_sees_its_own_gpu(job, tmp_path):
    code = (
        "import os, pathlib\n"
        "pathlib.Path({folder!r}, os.environ['CUDA_VISIBLE_DEVICES']).touch()\n" + FINISH
    )
    config = compose_config(["launcher=gpus", "launcher.devices=[3,GPU-7]"])
    launcher = launcher_of(config, None)
    assert set(worked([job(name, code) for name in "abcd"], launcher).values()) == {"finished"}
    seen = [path.name for path in tmp_path.glob("*/*") if path.name in ("3", "GPU-7")]
    assert len(seen) == 4
    assert set(seen) == {"3", "GPU-7"}


def test_visible_gpus_are_those_of_the_environment(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, 5")
    assert visible_devices() == ["2", "5"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(ConfigError, match="no GPU is visible here; use launcher=processes"):
        launcher_of(compose_config(["launcher=gpus"]), None)


def test_a_gpu_that_the_environment_does_not_leave_is_refused(monkeypatch):
    """A cluster that gave GPUs 2 and 5 has given 0 to somebody else."""
    config = compose_config(["launcher=gpus", "launcher.devices=[0,5]"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    with pytest.raises(ConfigError, match=r"devices=\[0,5\]: CUDA_VISIBLE_DEVICES leaves .* 2, 5;"):
        launcher_of(config, None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,0")
    assert len(launcher_of(config, None).slots) == 2


def test_runs_that_share_a_base_wait_for_the_one_that_makes_it(job, tmp_path):
    base, other = tmp_path / "base", tmp_path / "other base"
    make = (
        "import pathlib, time; base = pathlib.Path({base!r}); time.sleep(0.5); base.mkdir();"
        "(base / 'manifest.json').write_text('{{{{\"files\": {{{{}}}}}}}}'); "
    )
    first = make.format(base=str(base)) + FINISH
    needs_base = "import pathlib; assert pathlib.Path({base!r}, 'manifest.json').is_file(); "
    then = needs_base.format(base=str(base)) + FINISH
    jobs = [
        job("makes it", first, needs={base}),
        job("uses it", then, needs={base}),
        job("uses another", make.format(base=str(other)) + FINISH, needs={other}),
    ]
    launcher = Processes([{}, {}, {}])
    assert set(worked(jobs, launcher).values()) == {"finished"}


def test_bases_that_another_machine_names_otherwise_hold_up_no_run(job, tmp_path):
    """A cluster's GPUs resolve `auto` to something else than the machine that submits: one at a time."""
    code = (
        "import pathlib, time; place = pathlib.Path({folder!r}); (place / 'runs').touch(); time.sleep(1);"
        "most = len(list(place.parent.glob('*/runs'))); (place / 'runs').unlink();"
        "(place / 'most').write_text(str(most)); "
    )
    jobs = [job(name, code + FINISH, needs={tmp_path / "base"}) for name in "abc"]
    assert set(worked(jobs, two()).values()) == {"finished"}
    assert (tmp_path / "a" / "most").read_text() == "1"
    assert "2" in [(tmp_path / name / "most").read_text() for name in "bc"]


def test_a_run_held_by_another_process_is_waited_for(job):
    finishes, gives_up = job("finished there"), job("given up there")
    locks = []
    for held in (finishes, gives_up):
        held.folder.mkdir()
        locks.append(FileLock(held.folder / ".lock"))
        locks[-1].acquire()
    work = work_on([finishes, gives_up, job("free")], two())
    assert next(work).label == "free"
    (finishes.folder / "done.json").write_text("{}")
    for lock in locks:
        lock.release()
    rest = {job.label: job.state for job in work}
    assert rest == {"finished there": "finished elsewhere", "given up there": "finished"}


def test_two_sweeps_on_the_same_folders_do_each_run_once(tmp_path):
    """Both claim as runs do; each run appends to a file that counts."""

    def run(config):
        folder = config.folder
        with runs.claimed(folder, (folder / "done.json").is_file):
            time.sleep(0.1)
            with (folder / "count").open("a") as count:
                count.write("x")
            (folder / "done.json").write_text("{}")

    def sweep_all(name):
        alike = {"attacks": {}, "page": False}
        configs = {n: SimpleNamespace(**alike, folder=tmp_path / n) for n in "abcd"}
        jobs = [Job(name, [], None, config, config.folder) for name, config in configs.items()]
        states = [job.state for job in work_on(jobs, InProcess(run))]
        (tmp_path / name).write_text(" ".join(states))

    fork = multiprocessing.get_context("fork")
    both = [fork.Process(target=sweep_all, args=(name,)) for name in ("one", "two")]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [(tmp_path / name / "count").read_text() for name in "abcd"] == ["x"] * 4
    said = (tmp_path / "one").read_text() + " " + (tmp_path / "two").read_text()
    assert said.count("finished elsewhere") == 4
    assert len(said.replace("finished elsewhere", "").split()) == 4


def test_in_this_process_any_failure_is_that_of_one_run(job):
    errors = iter([None, TrainingError("the loss is nan"), ZeroDivisionError("oh"), HeldError("x")])

    def run(config):
        error = next(errors)
        if error:
            raise error

    launcher = InProcess(run)
    endings = [launcher.start(job("x"), None).poll() for _ in range(4)]
    assert endings == [
        Ending(),
        Ending(error="the loss is nan"),
        Ending(error="ZeroDivisionError: oh"),
        Ending(held=True),
    ]


def test_exit_codes_say_how_a_process_ended(tmp_path):
    console = tmp_path / "console.log"
    assert ending_of(0, console) == Ending()
    console.write_text("")
    assert ending_of(HeldError.exit_code, console) == Ending(held=True)
    assert ending_of(-15, console).error == "killed by SIGTERM"
    assert ending_of(3, console).error == "exit code 3: it printed nothing"
    console.write_text(f"error: {HELD.format(folder='out/run x')}\n")
    assert ending_of(75, console) == Ending(held=True, folder=Path("out/run x"))
    console.write_text("error: disk full\n")
    assert ending_of(StorageError.exit_code, console) == Ending(error="disk full", again=True)
    console.write_text("warnings.warn('resource_tracker: something leaked'")
    assert ending_of(130, console).error == "cancelled or interrupted; the same command goes on"


def test_submitit_runs_each_as_a_job(job, tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    overrides = ["launcher=slurm", "launcher.cluster=local", "launcher.parameters.gpus_per_node=0"]
    config = compose_config([*overrides, f"output_dir={tmp_path}", "launcher.jobs=2"])
    jobs = [job("good"), job("mistake", "import sys; print('error: no'); sys.exit(1)")]
    assert worked(jobs, Cluster(config)) == {"good": "finished", "mistake": "no"}
    with pytest.raises(ConfigError, match=r"launcher\.parameters"):
        Cluster(compose_config([*overrides, "+launcher.parameters.nodez=2"]))


def test_the_command_of_a_job_is_that_of_the_run_alone(tmp_path):
    overrides = ["launcher=gpus", "launcher.devices=[0]", "on_error=stop", "loss=gd", "seed=1"]
    made = Job("x", overrides, "mine", compose_config([]), tmp_path)
    expected = [
        "-m",
        "loku_exp",
        "--config-dir",
        "mine",
        "loss=gd",
        "seed=1",
        "launcher.kind=in_process",
    ]
    assert made.command[1:] == expected


def test_the_run_of_a_preset_with_a_launcher_of_its_own_starts_no_sweep(tmp_path):
    """The preset's value beat `launcher=in_process`, and each run began the sweep again."""
    (tmp_path / "experiment").mkdir()
    body = "launcher: {kind: processes, jobs: 2}\n"
    defaults = "defaults: [override /launcher: slurm]\nlauncher: {jobs: 2}\n"
    for text in (body, defaults):
        (tmp_path / "experiment" / "mine.yaml").write_text(f"# @package _global_\n{text}")
        config = compose_config(["experiment=mine"], str(tmp_path))
        assert config.launcher.kind in ("processes", "slurm")
        made = Job("x", ["experiment=mine"], str(tmp_path), config, tmp_path)
        alone = compose_config(made.command[5:], str(tmp_path))
        assert alone.launcher.kind == "in_process"


def test_a_page_that_is_asked_for_later_is_made(tiny, monkeypatch):
    """A finished run was skipped, and with it its page."""
    monkeypatch.setattr(sweeps, "show_sweep", lambda jobs: None)

    def run(config):
        (folder / "done.json").write_text("{}")
        if config.page:
            (folder / "page").mkdir()

    states = []
    for page in ("false", "true", "true"):
        jobs, configs = compose_jobs(tiny, ["seed=0", f"page={page}"])
        (planned,) = plan_jobs(jobs, configs, None)
        folder = planned.folder
        folder.mkdir(parents=True, exist_ok=True)
        states += [job.state for job in sweep(jobs, configs, None, run)]
    assert states == ["finished", "finished", "was finished"]


@pytest.fixture
def tiny(tmp_path, shared_cache):
    """Overrides of a world that is read in a second."""
    world = [
        "dataset.num_authors=4",
        "dataset.num_forget=1",
        "dataset.num_others=15",
        "training.batch_size=1",
    ]
    world += ["training.micro_batch_size=1", "model.vocabulary=300"]
    return [*world, f"output_dir={tmp_path}/out", f"cache_dir={shared_cache}"]


def compose_jobs(tiny, *jobs):
    overrides = [[*tiny, *job] for job in jobs]
    return overrides, [compose_config(job) for job in overrides]


def test_a_sweep_skips_fails_and_goes_on(tiny, monkeypatch, capsys):
    shown = []
    monkeypatch.setattr(sweeps, "show_sweep", shown.append)
    tried = []

    def run(config):
        tried.append(config.seed)
        if config.seed == 1:
            raise TrainingError("the loss is nan")
        folder = next(job.folder for job in planned if job.config == config)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "done.json").write_text("{}")

    jobs, configs = compose_jobs(tiny, ["seed=0"], ["seed=1"], ["seed=2"], ["seed=0"])
    planned = plan_jobs(jobs, configs, None)
    assert len(planned) == 3  # the fourth is the first again
    done = sweep(jobs, configs, None, run)
    assert [job.state for job in done] == ["finished", "failed", "finished"]
    assert done[1].error == "the loss is nan"
    again = sweep(jobs, configs, None, run)
    assert [job.state for job in again] == ["was finished", "failed", "was finished"]
    assert tried == [0, 1, 2, 1]
    assert shown == [done, again]


def test_on_error_stop_ends_the_sweep_at_the_first_failure(tiny, monkeypatch):
    monkeypatch.setattr(sweeps, "show_sweep", lambda jobs: None)

    def run(config):
        raise TrainingError("no")

    jobs, configs = compose_jobs([*tiny, "on_error=stop"], ["seed=0"], ["seed=1"])
    assert [job.state for job in sweep(jobs, configs, None, run)] == ["failed", "not started"]


def test_an_interrupted_sweep_shows_what_there_is(tiny, monkeypatch):
    shown = []
    monkeypatch.setattr(sweeps, "show_sweep", shown.extend)

    def run(config):
        raise KeyboardInterrupt

    jobs, configs = compose_jobs(tiny, ["seed=0"], ["seed=1"])
    with pytest.raises(KeyboardInterrupt):
        sweep(jobs, configs, None, run)
    assert [job.state for job in shown] == ["interrupted", "not started"]


def test_every_run_is_checked_before_the_first_starts(tiny, tmp_path):
    jobs, configs = compose_jobs(tiny, ["lora.rank=4"], ["lora.rank=900"], ["init.num_retain=9999"])
    with pytest.raises(ConfigError) as raised:
        sweep(jobs, configs, None, lambda config: pytest.fail("started"))
    assert len(raised.value.problems) == 2
    assert raised.value.problems[0].startswith("lora.rank=900: ")
    assert not (tmp_path / "out").exists()


def test_sweep_settings_do_not_change_a_runs_folder(tiny):
    jobs, configs = compose_jobs(
        tiny, ["seed=0"], ["on_error=stop"], ["pairs=[{a: 1}]"], ["launcher=in_process"]
    )
    assert len(plan_jobs(jobs, configs, None)) == 1
    jobs, configs = compose_jobs(tiny, ["launcher=in_process"], ["launcher=processes"])
    with pytest.raises(ConfigError, match="launcher: a sweep has one"):
        plan_jobs(jobs, configs, None)


def record(training=None, collapsed=False):
    judgement = Judgement(success=False, collapsed=collapsed, sentence="said")
    cost = {"seconds": {"bases": 100.0, "unlearning": 30.0}}
    return record_of(CATALOGUE, training=training or {}, judgement=judgement, cost=cost)


def test_the_table_shows_state_metrics_and_collapse(job):
    jobs = [job("a", state="finished"), job("b", state="failed"), job("c", state="was finished")]
    records = [record(), None, record(collapsed=True)]
    header, rows = header_and_cells(jobs, records)
    assert header == ["run", "state", *(m.label for m in CATALOGUE if m.summary), "time"]
    place = header.index("forget set, probability")
    value = f"{records[0].models['unlearned'].metrics['forget_prob']:.3f}"
    assert [row[place] for row in rows] == [value, "", value]
    assert [row[1] for row in rows] == ["finished", "failed", "was finished, COLLAPSED"]
    stopped = {"success": True, "epochs_to_forget": 7, "epochs": 7.0}
    not_stopped = {"success": False, "epochs_to_forget": None, "epochs": 20.0}
    header, rows = header_and_cells(jobs, [record(stopped), None, record(not_stopped)])
    assert header[2] == "epochs to forget"
    assert [row[2] for row in rows] == ["7", "", "> 20"]


@pytest.mark.parametrize("width", [80, 120, 300])
def test_at_any_width_the_table_keeps_every_value_and_few_lines(
    job, monkeypatch, capsys, width, tmp_path
):
    """In 80 columns 4 runs were 106 lines, and values went."""
    monkeypatch.setattr(tables, "console", lambda: plain_console(width))
    monkeypatch.setattr(tables.files, "read", lambda folder: record())
    jobs = [job(f"loss=ihl lora.rank={2**k} [old]", state="finished") for k in range(4)]
    for each in jobs:
        each.folder.mkdir(parents=True)
        (each.folder / "done.json").write_text("{}")
    jobs.append(job("loss=gd", state="failed", error="the loss is nan"))
    tables.show_sweep(jobs)
    text = capsys.readouterr().out
    lines = text.splitlines()
    table = [line for line in lines if not line.startswith(("5 runs in", "loss="))]
    assert max(map(len, table)) <= width
    assert len(lines) < 45
    _, (cells, *_) = header_and_cells(jobs, [record()] * 4 + [None])
    for value in cells[2:]:
        assert text.count(value) >= 4
    below = text.rpartition(cells[-1])[2]
    for each in jobs[:4]:
        assert f"{each.label}: {each.folder.name}" in below
    assert lines[-1] == "failed: loss=gd: the loss is nan"


def test_in_a_narrow_place_no_value_is_broken_in_two():
    values = ["forget set, probability 0.209", "model utility, its retain third 0.387", "time 34 s"]
    assert tables.in_lines(values, 60) == [f"  {values[0]}", f"  {values[1]} · {values[2]}"]
    assert tables.in_lines(values, 10) == [f"  {value}" for value in values]
    assert tables.in_lines([], 60) == []


def test_all_folders_of_a_sweep_are_named(job, tmp_path, capsys):
    jobs = [job("a", folder=tmp_path / "one" / "run"), job("b", folder=tmp_path / "two" / "run")]
    tables.show_sweep(jobs)
    assert f"2 runs in {tmp_path}/one, {tmp_path}/two\n" in capsys.readouterr().out


def test_a_claim_refuses_what_was_finished_meanwhile(tmp_path):
    folder = tmp_path / "run"
    with runs.claimed(folder):
        assert runs.is_held(folder)
        with pytest.raises(HeldError, match="another process is working"), runs.claimed(folder):
            pass
    assert not runs.is_held(folder)
    (folder / "done.json").write_text("{}")
    with (
        pytest.raises(HeldError, match="has just finished"),
        runs.claimed(folder, (folder / "done.json").is_file),
    ):
        pass


@pytest.mark.slow
def test_a_sweep_killed_twice_gives_what_an_undisturbed_one_gives(tmp_path):
    overrides = ["experiment=quick", "evaluation.curve=none", "lora.rank=4", "init=vanilla,fila"]
    check(overrides, 2, tmp_path)


def test_runs_that_differ_in_their_attacks_alone_are_not_dropped(tiny):
    jobs, configs = compose_jobs(tiny, ["attacks=[int8]"], ["attacks=[nf4]"])
    with pytest.raises(
        ConfigError, match=r"attacks=\[nf4\]: it is attacks=\[int8\] but for its attacks"
    ):
        plan_jobs(jobs, configs, None)


def test_each_earlier_run_has_inputs_of_its_own(tiny, monkeypatch):
    asked = []

    def load_inputs(config, cache):
        asked.append(config.target.run)
        raise TrainingError("enough")

    monkeypatch.setattr(plan, "load_inputs", load_inputs)
    jobs, configs = compose_jobs(tiny, ["seed=0"], ["seed=1"])
    configs = [
        config.model_copy(update={"target": config.target.model_copy(update={"run": run})})
        for config, run in zip(configs, ("outputs/a", "outputs/b"), strict=True)
    ]
    with pytest.raises(ConfigError, match="enough"):
        plan_jobs(jobs, configs, None)
    assert asked == ["outputs/a", "outputs/b"]


def test_a_run_whose_table_nobody_reads_has_finished(job):
    def unheard(config):
        raise BrokenPipeError

    ended = InProcess(unheard).start(job("a"), None)
    assert ended.poll() == Ending()


def test_a_reader_that_ended_is_an_error_and_no_exit(monkeypatch):
    class Gone:
        encoding = "utf-8"

        def write(self, text):
            raise BrokenPipeError

        def flush(self):
            raise BrokenPipeError

    console = plain_console(80)
    monkeypatch.setattr(console, "file", Gone())
    with pytest.raises(BrokenPipeError):
        console.print("text")
