"""How long a training is: updates, epochs, and how an update is split over micro-batches and processes."""

import math
from dataclasses import dataclass

from loku_exp.data.batches import Bucket
from loku_exp.errors import TrainingError
from loku_exp.runtime.settings import Optimization

MOST_EXAMPLES = 20_000_000  # whose order is drawn before the first update: half a gigabyte or so


@dataclass(frozen=True)
class Plan:
    """How long a training is, and where its epochs end.

    Attributes:
        updates: optimiser steps.
        updates_per_epoch: optimiser steps per pass over the first set, at least 1.
        batch_size: examples of the first set per update.
        micro_batch_size: examples of the first set per forward pass; divides `batch_size`.
        processes: how many share the micro-batches of an update.
    """

    updates: int
    updates_per_epoch: int
    batch_size: int
    micro_batch_size: int
    processes: int = 1

    @classmethod
    def of(cls, optimization: Optimization, num_rows: int, processes: int = 1) -> "Plan":
        """Plan as the official code does: ``int(epochs * rows) // batch_size`` updates.

        With ``batch_size=all`` an update is an epoch, and its micro-batches are the largest equal ones
        that do not exceed ``micro_batch_size``. Several processes share the micro-batches of an update.

        Raises:
            TrainingError: that is less than one update, or one at a rate of 0, or more examples than an
                order is kept of, or the processes cannot share it equally.
        """
        size = num_rows if optimization.batch_size == "all" else optimization.batch_size
        updates = int(round(optimization.epochs * num_rows, 6)) // size  # 2.3 * 100 is 229.99...
        if updates < 1:
            raise TrainingError(
                f"epochs={optimization.epochs} over {num_rows} examples is less than one update of "
                f"batch_size={optimization.batch_size}; lower batch_size or raise epochs"
            )
        if updates * size > MOST_EXAMPLES:
            raise TrainingError(
                f"epochs={optimization.epochs:g} over {num_rows} examples: the order of "
                f"{updates * size:,} alone fills memory, at most {MOST_EXAMPLES:,} are taken; epochs up to "
                f"{MOST_EXAMPLES // num_rows}"
            )
        if updates == 1 and optimization.schedule == "linear" and optimization.warmup_epochs > 0:
            raise TrainingError(
                f"warmup_epochs={optimization.warmup_epochs:g}: the only update is the first of the "
                "warm-up, whose rate is 0, so nothing would be trained; set warmup_epochs=0, lower "
                "batch_size or raise epochs"
            )
        most = min(optimization.micro_batch_size, size)
        smallest = 1 if optimization.batch_size == "all" else most
        fitting = [n for n in range(most, smallest - 1, -1) if size % (n * processes) == 0]
        if not fitting:
            raise TrainingError(
                f"micro_batch_size={most}: {processes} processes cannot share an update of {size} examples "
                "equally; batch_size must be a multiple of micro_batch_size x processes"
            )
        return cls(updates, max(1, num_rows // size), size, fitting[0], processes)

    @property
    def accumulation(self) -> int:
        """Micro-batches of an update on each process."""
        return self.batch_size // (self.micro_batch_size * self.processes)

    def warmup(self, epochs: float) -> int:
        """Return how many updates so many epochs of warm-up are, rounded up."""
        return math.ceil(round(epochs * self.updates_per_epoch, 6))  # 1.1 * 50 is 55.00...01

    def highest_rate(self, optimization: Optimization) -> float:
        """Return the largest learning rate of this training, as a share of the one that is set."""
        warmup = self.warmup(optimization.warmup_epochs)
        if optimization.schedule == "constant":
            return min(1.0, self.updates / (warmup + 1))
        return min(1.0, (self.updates - 1) / warmup) if warmup else 1.0

    def bucket(self, optimization: Optimization) -> Bucket | None:
        """Return how this training's examples are sorted by length, if they are."""
        if optimization.bucket is None:
            return None
        return Bucket(optimization.bucket, self.batch_size, self.micro_batch_size)

    @property
    def num_items(self) -> int:
        """Examples of the first set over the whole training."""
        return self.updates * self.batch_size

    def snapshot_steps(self, every_epochs: int) -> list[int]:
        """Return the steps after which a snapshot is taken: epoch ends, and the last step."""
        every = every_epochs * self.updates_per_epoch
        return sorted({*range(every, self.updates + 1, every), self.updates})
