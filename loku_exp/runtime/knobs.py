"""Annotated types for the knobs of losses, inits, datasets and suites.

Light on purpose: the configuration is checked against these annotations before anything heavy is
imported.
"""

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, MinLen

Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
Share = Annotated[float, Ge(0), Le(1)]
Count = Annotated[int, Ge(1)]
NonNegativeCount = Annotated[int, Ge(0)]
Counts = Annotated[list[Count], MinLen(1)]
Seed = Annotated[int, Ge(0)]
FisherPass = Literal["auto", "hooks", "sweep"]
Rows = Count | Literal["all"]
