"""What an attack brings back, beside what it does to a model that never knew.

By U, R and T an unlearned model, its reference and the target, by a the attack; m is any metric of the
forget set whose goal is the reference's value. Ours; the control arm is asked for in arXiv 2506.00688, and
what facts in a prompt do to exact unlearning in arXiv 2407.00106, which gives no number.
"""

from collections.abc import Mapping, Sequence

from loku_exp.evaluation.catalogue import Metric

Metrics = Mapping[str, float]
LEAST = 0.02  # less to divide by is noise
EXCESS, RETEACH = "excess", "reteach"
LABELS = {EXCESS: "excess over the reference", RETEACH: "gain beside the reference's"}


def excess(attacked: float, control: float, target: float, reference: float) -> float | None:
    """Return (m(U+a) - m(R+a)) / (m(T) - m(R)).

    0 where the model knows what one does that never knew and was attacked alike, 1 where it knows all that
    the target knew.

    Args:
        attacked: m of the attacked model.
        control: m of the attacked reference.
        target: m of the target, not attacked.
        reference: m of the reference, not attacked.

    Returns:
        None where target and reference differ by less than `LEAST`.
    """
    known = target - reference
    return (attacked - control) / known if abs(known) >= LEAST else None


def reteach(before: float, attacked: float, reference: float, control: float) -> float | None:
    """Return (m(U+a) - m(U)) / (m(R+a) - m(R)), a gain in those of the reference.

    1 where the model is as teachable as one that never knew, far below where it suppresses what it is told,
    above where it is reminded.

    Args:
        before: m of the model, not attacked.
        attacked: m of the attacked model.
        reference: m of the reference, not attacked.
        control: m of the attacked reference.

    Returns:
        None where the reference gains less than `LEAST`, or loses.
    """
    taught = control - reference
    return (attacked - before) / taught if taught >= LEAST else None


def gains(
    name: str, models: Mapping[str, Metrics], catalogue: Sequence[Metric]
) -> dict[str, float]:
    """Return both of an attacked model, ``<metric>_excess`` and ``<metric>_reteach``.

    Args:
        name: ``<subject>+<attack>``; of a reference, or without an attacked one, there is nothing to say.
        models: metrics by subject.
        catalogue: of the suite.
    """
    of, _, attack = name.partition("+")
    pair = [models.get(other) for other in ("reference", f"reference+{attack}")]
    plain, target = models.get(of), models.get("target")
    if not attack or of == "reference" or None in (*pair, plain, target):
        return {}
    found: dict[str, float] = {}
    reference, control = pair
    for metric in (m.name for m in catalogue if _is_compared(m)):
        known = [m.get(metric) for m in (plain, models[name], reference, control, target)]  # type: ignore[union-attr]
        if None in known:
            continue
        before, after, without, taught, knew = map(float, known)  # type: ignore[arg-type]
        both = {EXCESS: excess(after, taught, knew, without)}
        both[RETEACH] = reteach(before, after, without, taught)
        found |= {f"{metric}_{kind}": value for kind, value in both.items() if value is not None}
    return found


def words_of_gains(catalogue: Sequence[Metric]) -> list[Metric]:
    """Return the words for what `gains` finds."""
    return [
        Metric(
            name=f"{metric.name}_{kind}",
            label=f"{metric.label}: {label}",
            better="none",
            form="signed",
            unit="all",
            summary=True,
            forget=True,
        )
        for metric in catalogue
        if _is_compared(metric)
        for kind, label in LABELS.items()
    ]


def _is_compared(metric: Metric) -> bool:
    """Return whether a metric is shown, of the forget set, and to meet the reference's."""
    return (
        metric.forget and metric.summary and (metric.better, metric.form) == ("reference", "share")
    )
