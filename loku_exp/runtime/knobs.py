"""Annotated types for the knobs of losses, inits, datasets and suites.

Light on purpose: the configuration is checked against these annotations before anything heavy is
imported.
"""

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import AllowInfNan, BeforeValidator, StringConstraints
from pydantic_core import PydanticKnownError

LARGEST, LARGEST_COUNT, LARGEST_SEED = 1e9, 10**9, 2**63 - 1


def _no_truth_value(value: object) -> object:
    if isinstance(value, bool):  # pydantic would read true as 1
        raise PydanticKnownError("float_type")
    return value


def _no_truth_count(value: object) -> object:
    if isinstance(value, bool):
        raise PydanticKnownError("int_type")
    return value


Real = Annotated[float, AllowInfNan(False), BeforeValidator(_no_truth_value)]
Whole = Annotated[int, BeforeValidator(_no_truth_count)]
Number = Annotated[Real, Ge(-LARGEST), Le(LARGEST)]
Positive = Annotated[Real, Gt(0), Le(LARGEST)]
NonNegative = Annotated[Real, Ge(0), Le(LARGEST)]
Share = Annotated[Real, Ge(0), Le(1)]
Inner = Annotated[Real, Gt(0), Lt(1)]
Decay = Annotated[Real, Ge(0), Lt(1)]
Count = Annotated[Whole, Ge(1), Le(LARGEST_COUNT)]
NonNegativeCount = Annotated[Whole, Ge(0), Le(LARGEST_COUNT)]
Counts = Annotated[list[Count], MinLen(1)]
Seed = Annotated[Whole, Ge(0), Le(LARGEST_SEED)]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,63}$")]
"""A word that becomes part of a folder's name."""
Place = Annotated[str, StringConstraints(min_length=1, pattern=r"^[^\x00\n]+$")]
"""A folder to write to."""
FisherPass = Literal["auto", "hooks", "sweep"]
Rows = Count | Literal["all"]
Levels = Literal["uniform", "nf4"]
"""What a weight is rounded to; see `loku_exp.runtime.rounding`."""
RetainTerm = Literal["ce", "kl"]
"""What keeps the retain set: cross-entropy, or the divergence from what the target predicts there."""
MembershipScore = Literal["loss", "zlib", "min_k", "min_k_plus"]
"""What says whether a text was trained on; see `loku_exp.evaluation.membership`."""
LATER_KNOBS: dict[str, dict[str, object]] = {
    "loku_exp.losses.builtin.gd": {"retain_term": "ce"},
    "loku_exp.losses.builtin.ihl": {"retain_term": "ce"},
    "loku_exp.data.tofu.load_tofu": {"holdout": False},
    "loku_exp.data.toy_tofu.load_toy_tofu": {"num_holdout": 0},
    "loku_exp.evaluation.tofu.suite.tofu_suite": {"membership": ["loss", "zlib", "min_k"]},
    "loku_exp.evaluation.tdec.suite.tdec_suite": {"membership": []},
}
"""By function, knobs that it was given when there were runs of it, with what it did before."""
