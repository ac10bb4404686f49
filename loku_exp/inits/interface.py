"""What an init is given and what it returns."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Layer:
    """A linear layer that gets an adapter.

    Attributes:
        name: its path in the model.
        weight: (out, in), the target model's.
        rank: of the adapter.
        scaling: alpha / rank; the adapter adds ``scaling * B @ A``.
        seed: of this layer's random draws.
    """

    name: str
    weight: Tensor
    rank: int
    scaling: float
    seed: int


@dataclass(frozen=True)
class Factors:
    """The initial adapter of one layer, fp32: a is (rank, in), b is (out, rank)."""

    name: str
    a: Tensor
    b: Tensor


@dataclass(frozen=True)
class Importance:
    """Relative Fisher information of the linear layers, reduced to row weights.

    Attributes:
        row_weights: per layer (out,) fp32, ``sqrt(sum_j F_forget / (F_retain + epsilon))``.
        epsilon_share: share of all weights whose retain Fisher is below epsilon; near 1 the
            importance is the forget Fisher alone.
        flops: of measuring it, whether it was measured now or read from a cache.
        fisher_pass: how it was measured, ``hooks`` or ``sweep``.
    """

    row_weights: dict[str, Tensor]
    epsilon_share: float
    flops: int = 0
    fisher_pass: str | None = None


MeasureFisher = Callable[..., Importance]
"""``fisher(group_size=, epsilon=, relative=, num_retain=, seed=, fisher_pass=)``; runs the data, or
reads a cache."""

MeasureMoments = Callable[..., Iterator[Tensor]]
"""``moments(names, of=, side=, by=, number=, seed=)``: of each layer the mean of ``x x^T``, (d, d), of what
it reads or gives for tokens (fp32) or whole texts (fp64); forward passes alone."""

MeasureVariance = Callable[..., Importance]
"""``variance(layers, std=, group_size=, epsilon=, num_retain=, seed=)``: importance from the variance of
the gradients of a random adapter."""
