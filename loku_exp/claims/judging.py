"""Registered claims, judged by the records of finished runs; the rules stand in the file of claims.

Two arms are compared unit by unit, a unit being one base seed and forget set. Runs of both that share unit,
unlearning seed, and whatever of rank, layers and rate the claim leaves free, are a pair.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from loku_exp.claims.reading import comparable, has_quantity, pairs_of, unknown_choices
from loku_exp.claims.registered import Claim, Claims
from loku_exp.report.collect import Run
from loku_exp.report.estimates import Estimate, mean_over_units


@dataclass(frozen=True)
class Verdict:
    """What runs say of a claim.

    Attributes:
        claim: which.
        says: ``yes``, ``no``, ``undecided`` or ``no runs``.
        why: of the last two, and what must be known of the others.
        estimate: of the difference (or of a's value, where there is no b), over units.
        least: the value from which on, with an interval of this width, the claim would have been called
            true; of ``within`` how far from 0 it may lie, None where the interval is wider than the margin.
        pairs: number of differences averaged.
        missed: runs that never came down to the level, or lack the quantity.
        uneven: pairs in which one arm had more learning rates than the other.
    """

    claim: Claim
    says: str
    why: str = ""
    estimate: Estimate | None = None
    least: float | None = None
    pairs: int = 0
    missed: int = 0
    uneven: int = 0


@dataclass
class Judged:
    """All verdicts, and which runs were left out, with the reason."""

    verdicts: list[Verdict]
    runs: int
    left_out: dict[str, str] = field(default_factory=dict)


def judge_claims(claims: Claims, runs: Iterable[Run]) -> Judged:
    """Judge every claim by the runs that are of its protocol and may be compared with each other.

    Args:
        claims: with their rules.
        runs: finished ones; what does not belong is left out by name.
    """
    kept, left_out = comparable(claims, runs)
    verdicts = [_judge(claim, claims.level, kept) for claim in claims.claims]
    return Judged(verdicts, len(kept), left_out)


def _judge(claim: Claim, level: float, runs: list[Run]) -> Verdict:
    if runs and not has_quantity(claim, runs):
        return Verdict(claim, "no runs", f"no run has the quantity '{claim.quantity}'")
    unknown = unknown_choices(claim, runs) if runs else []
    if unknown:
        why = f"an arm names '{unknown[0]}', which is no choice or key of any run"
        return Verdict(claim, "no runs", why)
    pairs = pairs_of(claim, level, runs)
    estimate = mean_over_units(pairs.values)
    counts: dict[str, Any] = {"missed": pairs.missed, "uneven": pairs.uneven}
    if estimate is None:
        return Verdict(claim, "no runs", "no pair of runs to compare", **counts)
    counts |= {"estimate": estimate, "pairs": len(pairs.values)}
    if estimate.low is None or estimate.high is None:
        return Verdict(claim, "undecided", "one unit, no interval", **counts)
    says = verdict_of(claim.side, claim.margin, estimate.low, estimate.high)
    why = "the interval holds the margin" if says == "undecided" else ""
    if estimate.low == estimate.high:
        why = f"all {estimate.n} units alike: the interval has no width, and says little of others"
    least = _least(claim, (estimate.high - estimate.low) / 2)
    return Verdict(claim, says, why, least=least, **counts)


def _least(claim: Claim, half: float) -> float | None:
    """Return the value from which on the claim would have been called true."""
    if claim.side == "within":
        return claim.margin - half if half < claim.margin else None
    return claim.margin + half if claim.side == "above" else claim.margin - half


def verdict_of(side: str, margin: float, low: float, high: float) -> str:
    """Return what an interval says of a claim.

    Args:
        side: on which side of the margin the claim has the value: above, below, or within +- margin.
        margin: of the claim.
        low: lower end of the interval.
        high: upper end.
    """
    if side == "within":
        inside, outside = -margin < low and high < margin, low > margin or high < -margin
    elif side == "above":
        inside, outside = low > margin, high < margin
    else:
        inside, outside = high < margin, low > margin
    return "yes" if inside else "no" if outside else "undecided"
