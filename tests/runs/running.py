"""Whole runs in this process, compared, killed and counted."""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from loku_exp.config.compose import compose_config
from loku_exp.evaluation.lm.inference import Inference
from loku_exp.results import files as results
from loku_exp.run import run

QUICK = ["experiment=quick"]


def start(place: Path, cache: Path, *overrides: str, base: list[str] = QUICK) -> Path:
    """Run a small configuration, with changes; return its folder."""
    places = [f"output_dir={place}", f"cache_dir={cache}"]
    return run(compose_config([*base, *places, *overrides]))


def command(*overrides: str, cache: Path, output: Path, **environment: str):
    """The same as a command line, and its environment."""
    places = [f"output_dir={output}", f"cache_dir={cache}"]
    arguments = [sys.executable, "-m", "loku_exp", *QUICK, *places, *overrides]
    return arguments, os.environ | environment


def numbers(folder: Path) -> dict:
    """A record without what may differ between two equal runs: times, places, and where they ran."""
    record = results.read(folder).model_dump()
    record["cost"] = record["cost"].get("flops")
    record["training"].pop("check_seconds", None)
    for check in record["training"].get("checks", []):
        del check["seconds"]
    del record["run"]["started"]
    for model in record["models"].values():
        del model["path"]
    return record


def same_numbers(one: Path, two: Path) -> None:
    """Compare the records of two runs, and all their examples."""
    assert numbers(one) == numbers(two)
    assert (one / "examples.jsonl").read_text() == (two / "examples.jsonl").read_text()


def examples(folder: Path, model: str, of_set: str) -> list[dict]:
    """The rows of a model on a set."""
    rows = [json.loads(line) for line in (folder / "examples.jsonl").read_text().splitlines()]
    return [row for row in rows if row["model"] == model and row["set"] == of_set]


def forget_end(folder: Path) -> None:
    """Leave a run as a kill just before its end does."""
    for name in ("done.json", "metrics.json", "unlearning.json"):
        (folder / name).unlink()


def unasked_cache(cache: Path, place: Path) -> Path:
    """A copy of a cache with its models, whom nobody has asked anything yet."""
    return shutil.copytree(
        cache, place, ignore=shutil.ignore_patterns("answers", "asked", "*.lock")
    )


def in_killed_process(work: Callable[[], object]) -> None:
    """Do something in a process of its own that must end by SIGKILL, sent by itself."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(3)  # it was to be killed
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), f"it ended with exit code {os.waitstatus_to_exitcode(status)}"
    assert os.WTERMSIG(status) == signal.SIGKILL


def kill_in_batch(name: str, number: int) -> None:
    """Have this process killed when the subject `name` has answered so many batches."""
    from loku_exp.evaluation.lm import answers
    from loku_exp.stages import evaluate

    answers.SECONDS_BETWEEN_WRITES = 0
    made, asking = evaluate._inference, []
    batches = Inference.batches
    count = 0

    def inference(subject, *rest):
        asking[:] = [subject.name]
        return made(subject, *rest)

    def counted(self, kind, requests, wanted):
        nonlocal count
        for batch in batches(self, kind, requests, wanted):
            if asking == [name] and count == number:
                os.kill(os.getpid(), signal.SIGKILL)
            count += asking == [name]
            yield batch

    evaluate._inference = inference
    Inference.batches = counted


class Asked:
    """Counts what subjects are asked, by their names: requests that a model had to compute."""

    def __init__(self, monkeypatch):
        from loku_exp.stages import evaluate

        self.requests: dict[str, int] = {}
        made, batches, asking = evaluate._inference, Inference.batches, [""]

        def inference(subject, *rest):
            asking[:] = [subject.name]
            self.requests.setdefault(subject.name, 0)
            return made(subject, *rest)

        def counted(itself, kind, requests, wanted):
            self.requests[asking[0]] += sum(map(wanted, range(len(requests))))
            return batches(itself, kind, requests, wanted)

        monkeypatch.setattr(evaluate, "_inference", inference)
        monkeypatch.setattr(Inference, "batches", counted)
