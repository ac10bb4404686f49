"""The stop rule: training ends after the first epoch at which the forget set counts as forgotten."""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from torch import nn
from transformers import TrainerCallback

from loku_exp.errors import ConfigError
from loku_exp.evaluation.harness import Evaluation
from loku_exp.evaluation.tdec.stop_check import Check, Thresholds, would_flip
from loku_exp.runtime import distributed as parallel
from loku_exp.runtime.cache import write_text
from loku_exp.runtime.events import Updated, tell
from loku_exp.runtime.settings import StopRule

log = logging.getLogger(__name__)
CHECKS = "checks.json"


def thresholds_of(stop: StopRule | None, target: Evaluation) -> Thresholds | None:
    """Return what the forget set must come below: what is configured, else measured on unseen text.

    Args:
        stop: None for no stop rule.
        target: evaluation of the untouched model, with the set ``unseen``.

    Raises:
        ConfigError: the dataset has no unseen text, or EL of this n is not evaluated.
    """
    if stop is None:
        return None
    values: dict[str, float] = {}
    unseen = [row for row in target.examples if row["set"] == "unseen"]
    for name, column, given in (("el", f"el{stop.n}", stop.el), ("ma", "ma", stop.ma)):
        if given is not None:
            values[name] = given
            continue
        rows = [row[column] for row in unseen if column in row]
        if len(rows) < 2:
            raise ConfigError(
                f"training.stop.{name} is to be measured on unseen text, and the evaluation has no "
                f"{column} of at least two unseen texts; set training.stop.{name}=..., training.stop=null, "
                "or use a dataset with unseen text (tdec) and add its n to evaluation.n"
            )
        values[name] = fmean(rows)
        values[f"{name}_error"] = stdev(rows) / len(rows) ** 0.5
    if min(values["el"], values["ma"]) <= 0:
        raise ConfigError(
            f"the thresholds are EL_{stop.n} {values['el']:.4f} and MA {values['ma']:.4f}, and nothing can "
            "be below 0; lower training.stop.n (and add it to evaluation.n), or set training.stop.el=..."
        )
    measured = stop.el is None or stop.ma is None
    return Thresholds(stop.n, **values, texts=len(unseen) if measured else 0)


def around_the_stop(
    thresholds: dict[str, Any], end: dict[str, float], before: dict[str, float] | None
) -> dict[str, Any]:
    """Return the values one epoch before the end, and whether the outcome hangs on the thresholds.

    Args:
        thresholds: fields of `Thresholds`.
        end: metrics of the model when training ended.
        before: metrics one epoch earlier, where that was evaluated.
    """
    names = {f"forget_el{thresholds['n']}": f"EL_{thresholds['n']}", "forget_ma": "MA"}
    el = end.get(f"forget_el{thresholds['n']}")
    flips = would_flip(end["forget_ma"], el, Thresholds(**thresholds))
    around: dict[str, Any] = {"flips_within_error": flips}
    if before is not None:
        around["epoch_before"] = {
            label: before[name] for name, label in names.items() if name in before
        }
    return around


class UntilForgotten(TrainerCallback):
    """Checks after every epoch, keeps what it found in the run's folder, and ends the training.

    Args:
        measure: checks a model in evaluation mode.
        thresholds: for the record.
        updates_per_epoch: of the plan.
        folder: of the run.
    """

    def __init__(
        self,
        measure: Callable[[nn.Module], Check],
        thresholds: Thresholds,
        updates_per_epoch: int,
        folder: Path,
    ):
        self.measure = measure
        self.thresholds = thresholds
        self.updates_per_epoch = updates_per_epoch
        self.file = folder / CHECKS
        self.checks: list[dict[str, Any]] = []

    def resume(self, step: int) -> bool:
        """Take up the checks up to a step; return whether training had ended there."""
        kept = json.loads(self.file.read_text()) if self.file.is_file() else []
        self.checks = [check for check in kept if check["step"] <= step]
        return bool(self.checks) and self.checks[-1]["forgotten"]

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> Any:
        """Check at the end of an epoch; a model that has forgotten is saved and trained no further."""
        if state.global_step % self.updates_per_epoch:
            return control
        started, training = time.perf_counter(), model.training
        model.eval()
        found = parallel.of_first(lambda: self.measure(model))
        model.train(training)
        seconds = round(time.perf_counter() - started, 3)
        self.checks.append({"step": state.global_step, "seconds": seconds} | asdict(found))
        if parallel.rank() == 0:
            write_text(self.file, json.dumps(self.checks, indent=1))
        measured = {"check_ma": found.ma} | ({} if found.el is None else {"check_el": found.el})
        tell(Updated(state.global_step, measured))
        if found.forgotten:
            log.info("forgotten after update %d", state.global_step)
            control.should_training_stop = control.should_save = True
        return control

    def report(self) -> dict[str, Any]:
        """Return what the record says: thresholds, success, epochs, checks and their cost."""
        success = bool(self.checks) and self.checks[-1]["forgotten"]
        epochs = self.checks[-1]["step"] // self.updates_per_epoch if success else None
        return {
            "thresholds": asdict(self.thresholds),
            "success": success,
            "epochs_to_forget": epochs,
            "checks": self.checks,
            "check_seconds": round(sum(check["seconds"] for check in self.checks), 3),
        }
