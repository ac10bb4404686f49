"""Show a run on Weights & Biases, Trackio or TensorBoard while it works; nothing else here knows them.

A tracker follows a run's events and reads what a finished run wrote. It is never the only copy of
anything, and whatever goes wrong with it costs one warning, never the run.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from loku_exp.runtime.events import followed_by
from loku_exp.runtime.settings import Tracking
from loku_exp.tracking.tensorboard import TensorBoard
from loku_exp.tracking.tracker import Tracker
from loku_exp.tracking.trackio import Trackio
from loku_exp.tracking.wandb import Wandb

TRACKERS: dict[str, type[Tracker]] = {
    "wandb": Wandb,
    "trackio": Trackio,
    "tensorboard": TensorBoard,
}


@contextmanager
def tracked(tracking: Tracking) -> Iterator[None]:
    """Track the run inside, if the configuration asks for it.

    A tracker opens when the run begins, so a finished run that is only shown opens none, and closes
    when it ends, however that is.
    """
    if tracking.name == "none":
        yield
        return
    tracker = TRACKERS[tracking.name](tracking)
    failed = True
    try:
        with followed_by(tracker):
            yield
        failed = False
    finally:
        tracker.guarded(lambda: tracker.end(failed))
