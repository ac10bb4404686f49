"""TOFU's words: its catalogue of metrics, what half of the rows say, and the judgement of a model."""

from collections.abc import Sequence
from typing import Any

from loku_exp.evaluation.catalogue import Judgement, Metric
from loku_exp.evaluation.collapse import collapse
from loku_exp.evaluation.kept import kept
from loku_exp.evaluation.suite import Evaluation, Facts, Metrics, Row, row_means
from loku_exp.evaluation.tofu import metrics

SIGNIFICANT = 0.05
FEW_ROWS = 40
LITTLE_UTILITY = 0.5  # of its retain third
SETS = {
    "forget": "forget set",
    "retain": "retain set",
    "authors": "real authors",
    "facts": "world facts",
}
QUANTITIES = {"prob": "probability", "rouge": "ROUGE-L recall", "truth_ratio": "truth ratio"}
MEMORISED = {"em": "exact memorisation", "strength": "extraction strength"}
MEMORISED_SETS = ("forget", "retain")  # the others were not trained on
PARTS: dict[str, Any] = {"forget_prob": "knowledge", "retain_prob": "utility"}
SUMMARY = ("forget_prob", "forget_rouge", "retain_prob")
OF_ROW = tuple(QUANTITIES | MEMORISED)


def _metric(name: str, label: str, **words: Any) -> Metric:
    given: dict[str, Any] = {"unit": "group", "summary": True} | words
    return Metric(name=name, label=label, **given)


CATALOGUE = (
    *(
        _metric(
            f"{name}_{quantity}",
            f"{title}, {label}",
            part=PARTS.get(f"{name}_{quantity}", "detail"),
            summary=f"{name}_{quantity}" in SUMMARY,
            forget=name == "forget",
        )
        for name, title in SETS.items()
        for quantity, label in (QUANTITIES | (MEMORISED if name in MEMORISED_SETS else {})).items()
    ),
    _metric(
        "forget_quality",
        "forget quality p",
        better="none",
        form="p",
        unit="all",
        part="test",
        forget=True,
    ),
    _metric("forget_ks", "KS distance", better="none", unit="all", part="gap", forget=True),
    _metric(
        "forget_shift", "shift of log ratio", better="none", form="signed", unit="all", forget=True
    ),
    _metric("model_utility", "model utility", unit="all", part="utility"),
    _metric("model_utility_retain", "model utility, its retain third", unit="all", part="utility"),
)


def aggregate(examples: Sequence[Row], reference: Sequence[Row] | None = None) -> Metrics:
    """Return the metrics of a model over some of its rows, named as in ``metrics.json``.

    Means over rows; model utility and the comparisons with the reference by the formulas of
    `loku_exp.evaluation.tofu.metrics`.

    Args:
        examples: rows of ``examples.jsonl``.
        reference: those of the reference, or None: no comparison then.
    """
    found = row_means([{k: row[k] for k in ("set", *OF_ROW) if k in row} for row in examples])
    nine = [f"{s}_{m}" for s in metrics.UTILITY_SETS for m in metrics.UTILITY_METRICS]
    if found.keys() >= set(nine):
        found["model_utility"] = metrics.model_utility([found[name] for name in nine])
        found["model_utility_retain"] = metrics.model_utility(
            [found[f"retain_{metric}"] for metric in metrics.UTILITY_METRICS]
        )
    ours, theirs = log_ratios(examples), log_ratios(reference or [])
    if ours and ours.keys() == theirs.keys():
        pair = list(ours.values()), [theirs[row] for row in ours]
        quality, distance = metrics.forget_quality(*pair)
        found |= {"forget_quality": quality, "forget_ks": distance}
        found["forget_shift"] = metrics.forget_shift(*pair)
    return found


def judge_tofu(
    model: Evaluation, target: Evaluation, reference: Evaluation | None, facts: Facts
) -> Judgement:
    """Say whether a model can be told apart from one that never saw the forget set, and what it kept.

    E.g. *distinguishable from retraining (p = 3e-05): it prefers the truth more than the reference does,
    forget probability 0.250 (reference 0.110), utility 86 % of the target's (its retain third 85 %)*.
    Success: p >= .05 and not collapsed.
    Which side it errs on is said only where the two can be told apart.
    """
    broken = collapse(model, target)
    parts = [f"COLLAPSED ({broken})"] if broken else []
    quality, success = model.metrics.get("forget_quality"), None
    if reference is None:
        parts.append("no reference, so forgetting cannot be judged")
    elif quality is None:
        parts.append("no paraphrases and wrong answers, so forgetting cannot be judged")
        parts += _probabilities(model, reference)
    elif quality < SIGNIFICANT:
        success = False
        prefers = (
            "prefers the truth more"
            if model.metrics["forget_shift"] > 0
            else "avoids the truth more"
        )
        parts += [
            f"distinguishable from retraining (p = {quality:.1g}): it {prefers} than the reference does"
        ]
        parts += _probabilities(model, reference)
    else:
        success = not broken
        parts.append(f"not distinguishable from retraining (p = {quality:.2g})")
        parts += _nor_was(target)
    parts += _stopped(facts) + _kept(model, target) + kept(model, target)
    return Judgement(
        success=success,
        collapsed=broken is not None,
        sentence=", ".join(parts),
        utility=_utility(model, target),
        notes=_cautions(model.counts.get("forget", 0) if quality is not None else 0),
    )


def _nor_was(target: Evaluation) -> list[str]:
    """Return that the target passes as well, where it does: then the test does not see what it knows."""
    before = target.metrics.get("forget_quality")
    if before is None or before < SIGNIFICANT:
        return []
    return [f"but nor was the target (p = {before:.2g}), so this shows no forgetting"]


def _probabilities(model: Evaluation, reference: Evaluation) -> list[str]:
    ours, theirs = model.metrics.get("forget_prob"), reference.metrics.get("forget_prob")
    if ours is None or theirs is None:
        return []
    return [f"forget probability {ours:.3f} (reference {theirs:.3f})"]


def _stopped(facts: Facts) -> list[str]:
    """Return after which epoch a stop rule ended the training, where there was one."""
    training = facts.training
    if "success" not in training:
        return []
    goal, most = training["thresholds"]["metric"].replace("_", " "), training["max_epochs"]
    if training["success"]:
        return [
            f"stopped at the reference's {goal} after {training['epochs_to_forget']} of {most:g} epochs"
        ]
    return [f"did not come to the reference's {goal} within {most:g} epochs"]


def _kept(model: Evaluation, target: Evaluation) -> list[str]:
    shares = {
        label: f"{100 * model.metrics[name] / target.metrics[name]:.0f} %"
        for name, label in (("model_utility", "utility"), ("model_utility_retain", "retain third"))
        if target.metrics.get(name) and name in model.metrics
    }
    if not shares:
        return []
    third = f" (its retain third {shares['retain third']})" if len(shares) > 1 else ""
    label, share = next(iter(shares.items()))
    return [f"{label} {share} of the target's{third}"]


def _utility(model: Evaluation, target: Evaluation) -> str | None:
    """Return what says what a model kept: model utility, unless the target had little of it to lose.

    Of a small model, or one trained from scratch, real authors and world facts are at chance, and with
    them two thirds of its utility.
    """
    third = target.metrics.get("model_utility_retain", 0.0)
    names = ["model_utility", "model_utility_retain", "retain_prob"]
    if target.metrics.get("model_utility", 0.0) < LITTLE_UTILITY * third:
        names.remove("model_utility")
    return next((name for name in names if name in model.metrics), None)


def _cautions(forget_rows: int) -> list[str]:
    if not 0 < forget_rows <= FEW_ROWS:
        return []
    return [
        f"forget quality compares only {forget_rows} rows of few authors and has little power: even "
        "untouched targets can pass p > .05"
    ]


def log_ratios(examples: Sequence[Row]) -> dict[int, float]:
    """Return log R of the forget rows among these, by row."""
    return {
        example["row"]: example["log_ratio"]
        for example in examples
        if example["set"] == "forget" and "log_ratio" in example
    }
