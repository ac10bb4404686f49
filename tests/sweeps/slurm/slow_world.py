"""The toy world, and trainings that last: ``dataset._target_=slow_world.load_toy_tofu``.

Until the job is queued again every update takes LOKU_SLOW seconds more, and a base is kept after every
epoch, whatever that costs: so a job meets its time limit of a minute with something to go on from.
No number changes.
"""

import os
import time
from typing import Any

from loku_exp.data.toy_tofu import load_toy_tofu
from loku_exp.stages import finetuning
from loku_exp.training.snapshots import Snapshots

__all__ = ["load_toy_tofu"]
finetuning.SHARE_OF_SNAPSHOTS = float("inf")
_plain = Snapshots.on_step_end


def _slowly(self: Snapshots, *given: Any, **named: Any) -> Any:
    if "SLURM_RESTART_COUNT" not in os.environ:
        time.sleep(float(os.environ.get("LOKU_SLOW", "0")))
    return _plain(self, *given, **named)


Snapshots.on_step_end = _slowly
