"""A stop rule amid training: it ends after the first epoch at which the forget set counts as forgotten."""

import json
import logging
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from loku_exp.evaluation.suite import Stop
from loku_exp.runtime import distributed
from loku_exp.runtime.cache import write_text
from loku_exp.runtime.events import Updated, tell

log = logging.getLogger(__name__)
CHECKS = "checks.json"


class UntilForgotten(TrainerCallback):
    """Checks after every epoch, keeps what it found in the run's folder, and ends the training.

    Args:
        stop: the suite's rule.
        updates_per_epoch: of the plan.
        folder: of the run.
    """

    def __init__(self, stop: Stop, updates_per_epoch: int, folder: Path):
        self.stop = stop
        self.updates_per_epoch = updates_per_epoch
        self.file = folder / CHECKS
        self.checks: list[dict[str, Any]] = []

    def resume(self, step: int) -> bool:
        """Take up the checks up to a step; return whether training had ended there."""
        kept = json.loads(self.file.read_text(encoding="utf-8")) if self.file.is_file() else []
        self.checks = [check for check in kept if check["step"] <= step]
        return bool(self.checks) and self.checks[-1]["forgotten"]

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> Any:
        """Check at the end of an epoch; a model that has forgotten is saved and trained no further."""
        if state.global_step % self.updates_per_epoch:
            return control
        started, training = time.perf_counter(), model.training
        model.eval()
        found = distributed.of_first(lambda: self._found(model))
        model.train(training)
        seconds = round(time.perf_counter() - started, 3)
        values = found.pop("values")
        self.checks.append({"step": state.global_step, "seconds": seconds} | found)
        if distributed.rank() == 0:
            write_text(self.file, json.dumps(self.checks, indent=1))
        tell(Updated(state.global_step, values))
        if found["forgotten"]:
            log.info("forgotten after update %d", state.global_step)
            control.should_training_stop = control.should_save = True
        return control

    def report(self) -> dict[str, Any]:
        """Return what the record says: thresholds, success, epochs, checks and their cost."""
        success = bool(self.checks) and self.checks[-1]["forgotten"]
        epochs = self.checks[-1]["step"] // self.updates_per_epoch if success else None
        return {
            "thresholds": self.stop.thresholds,
            "success": success,
            "epochs_to_forget": epochs,
            "checks": self.checks,
            "check_seconds": round(sum(check["seconds"] for check in self.checks), 3),
        }

    def _found(self, model: Any) -> dict[str, Any]:
        check: Any = self.stop(model)
        return asdict(check) | {"values": check.values()}
