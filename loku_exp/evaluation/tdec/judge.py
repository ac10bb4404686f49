"""TDEC's words: its catalogue of metrics, and the judgement of a model that was to forget texts."""

from collections.abc import Sequence
from typing import Any

from loku_exp.errors import UserError
from loku_exp.evaluation.catalogue import ABILITIES, Judgement, Metric
from loku_exp.evaluation.collapse import collapse
from loku_exp.evaluation.kept import kept
from loku_exp.evaluation.suite import Evaluation, Facts, Metrics
from loku_exp.evaluation.tdec.stop_check import Thresholds, thresholds_of, would_flip
from loku_exp.runtime.settings import StopRule

SETS = {
    "forget": "forget set",
    "sibling": "siblings",
    "retain": "retain set",
    "unseen": "unseen text",
}
PERPLEXITIES = {
    "pile_ppl": "pile, perplexity per token",
    "wikitext_ppl": "wikitext, perplexity per token",
    "wikitext_in_domain_ppl": "wikitext (in domain), perplexity per token",
}
PARTS: dict[str, Any] = {"forget_ma": "knowledge", "sibling_ma": "utility", "retain_ma": "utility"}


def catalogue(n: Sequence[int], length: int, suffix: int, further: bool = False) -> list[Metric]:
    """Return the metrics in the order of tables.

    Args:
        n: sizes of n-grams of EL.
        length: of a whole text in tokens.
        suffix: tokens that exact extraction asks for.
        further: whether extraction strength, probability and ROUGE are measured as well.
    """
    quantities = {f"el{size}": f"EL_{size}" for size in sorted(n)} | {"ma": "MA"}
    exact = sorted({suffix, length - suffix})
    quantities |= {f"exact{size}": f"exact {size}" for size in exact} | {"loss": "loss"}
    if further:
        quantities |= {"strength": "extraction strength", "prob": "probability"}
        quantities |= {"rouge": "ROUGE-L recall"}
    of_sets = [
        Metric(
            name=f"{name}_{quantity}",
            label=f"{title}, {label}",
            part=PARTS.get(f"{name}_{quantity}", "detail"),
            forget=name == "forget",
            summary=(quantity == "ma" and name != "unseen")
            or (name == "forget" and quantity[:2] == "el"),
        )
        for name, title in SETS.items()
        for quantity, label in quantities.items()
    ]
    perplexities = [
        Metric(name=name, label=label, form="perplexity", part="ability", summary=True)
        for name, label in PERPLEXITIES.items()
    ]
    return of_sets + perplexities


def judge_tdec(
    model: Evaluation, target: Evaluation, reference: Evaluation | None, facts: Facts
) -> Judgement:
    """Say whether the forget set can be extracted no more than unseen text, and what was kept.

    E.g. *forgotten after 7 of at most 20 epochs (EL_10 0.010, MA 0.210), siblings keep 91 % of their MA*.
    Success: EL and MA are below the stop rule's thresholds, or those of unseen text, and the rule was met
    where there is one; and not collapsed. None where there is no unseen text to compare with, or where
    no rule ended it and EL of the thresholds' n was not measured.
    """
    broken = collapse(model, target)
    parts = [f"COLLAPSED ({broken})"] if broken else []
    parts.append(_outcome(model.metrics, facts))
    parts += kept(model, target, {"sibling_ma": "siblings keep {} of their MA"})
    parts += kept(model, target)
    limits = _limits(target, facts)
    goals, notes, success = {}, [], None
    if limits is None:
        notes += _without_limits(target, reference)
    else:
        goals = {"forget_ma": limits.ma, f"forget_el{limits.n}": limits.el}
        known = {name: goal for name, goal in goals.items() if name in model.metrics}
        below = all(model.metrics[name] < goal for name, goal in known.items())
        if facts.training.get("success") and not below:  # other precision than in training, say
            parts.append("but NOT below the thresholds as it is evaluated")
        met = facts.training.get("success", True if known == goals else None)
        success = met if below and not broken else False
        notes.append("stop rule: " + _stop_rule(model, reference, facts, limits))
    return Judgement(
        success=success,
        collapsed=broken is not None,
        sentence=", ".join(parts),
        utility=_utility(model.metrics, target.metrics),
        goals=goals,
        notes=notes,
    )


def _limits(target: Evaluation, facts: Facts) -> Thresholds | None:
    """Return the thresholds of the stop rule, else those that unseen text gives for the smallest n."""
    if "thresholds" in facts.training:
        return Thresholds(**facts.training["thresholds"])
    sizes = sorted(
        int(name[len("forget_el") :]) for name in target.metrics if name[:9] == "forget_el"
    )
    if not sizes:
        return None
    try:
        return thresholds_of(StopRule(n=sizes[0], el=None, ma=None), target)
    except UserError:  # no unseen text, or nothing can be below it
        return None


def _without_limits(target: Evaluation, reference: Evaluation | None) -> list[str]:
    """Return why nothing says whether texts are forgotten."""
    els = sorted(int(name[9:]) for name in target.metrics if name.startswith("unseen_el"))
    if "unseen_ma" in target.metrics:
        known = {f"EL_{els[0]}": f"unseen_el{els[0]}"} if els else {}
        values = [f"{k} {target.metrics[m]:.4f}" for k, m in (known | {"MA": "unseen_ma"}).items()]
        return [
            f"unseen text gives no thresholds ({', '.join(values)}): nothing can be below 0, and two such "
            "texts are needed; a smaller n may be above it (evaluation.n)"
        ]
    if reference is not None:
        return []
    return [
        "without text the model never saw, and without a reference, nothing says whether these texts "
        "are as hard to extract as if it had never seen them"
    ]


def _outcome(metrics: Metrics, facts: Facts) -> str:
    els = [name for name in metrics if name.startswith("forget_el")]
    values = [f"EL_{name.removeprefix('forget_el')} {metrics[name]:.3f}" for name in els]
    values.append(f"MA {metrics['forget_ma']:.3f}")
    reached = f"({', '.join(values)})"
    training = facts.training
    if training.keys() <= {"thresholds"}:
        return f"forget set as it stands {reached}"
    if "success" not in training:
        return f"trained to the end without a stop rule {reached}"
    if training["success"]:
        epochs, most = training["epochs_to_forget"], training["max_epochs"]
        return f"forgotten after {epochs} of at most {most:g} epochs {reached}"
    return f"NOT forgotten within {training['max_epochs']:g} epochs {reached}"


def _stop_rule(
    model: Evaluation, reference: Evaluation | None, facts: Facts, limits: Thresholds
) -> str:
    n, el = limits.n, f"forget_el{limits.n}"
    source = f"measured on {limits.texts} unseen texts" if limits.texts else "given"
    text = (
        f"EL_{n} < {limits.el:.4f} (± {limits.el_error:.4f}) and MA < {limits.ma:.4f} "
        f"(± {limits.ma_error:.4f}), {source}"
    )
    if reference is not None and el in reference.metrics:
        text += (
            f"; the reference has EL_{n} {reference.metrics[el]:.4f}, "
            f"MA {reference.metrics['forget_ma']:.4f}"
        )
    if facts.before is not None:
        known = {f"EL_{n}": el, "MA": "forget_ma"}
        values = [f"{k} {facts.before[m]:.4f}" for k, m in known.items() if m in facts.before]
        text += f"; one epoch before: {', '.join(values)}"
    flips = would_flip(model.metrics["forget_ma"], model.metrics.get(el), limits)
    if flips is not None:
        text += f"; another outcome within the thresholds' error: {'yes' if flips else 'no'}"
    return text


def _utility(metrics: Metrics, target: Metrics) -> str | None:
    """Return what says what a model kept: an ability where one was measured, else its siblings."""
    names = (*ABILITIES, "sibling_ma", "retain_ma")
    return next((name for name in names if name in metrics and target.get(name)), None)
