"""What a run's numbers say in words: forgotten or not, at what cost, collapsed or not."""

import math
from collections.abc import Sequence
from typing import Any

SIGNIFICANT = 0.05
FEW_ROWS = 40
MIN_WORDS, MIN_DISTINCT = 10, 0.2
Metrics = dict[str, float]


def verdict(
    unlearned: Metrics, target: Metrics, *, collapse: str | None, pretrained: bool = True
) -> str:
    """Return one sentence.

    E.g. *distinguishable from retraining (p = 3e-05), under-forgotten, utility 86 % of the target's*.

    Args:
        unlearned: metrics of the unlearned model.
        target: metrics of the model before unlearning.
        collapse: from `collapsed`.
        pretrained: False for a model trained from scratch on the dataset alone: real authors and world
            facts are at chance then, so the retain third of model utility is named instead.
    """
    parts = []
    if collapse:
        parts.append(f"COLLAPSED ({collapse})")
    quality = unlearned.get("forget_quality")
    if quality is None:
        parts.append("no reference, so forgetting cannot be judged")
    elif quality < SIGNIFICANT:
        side = "under" if unlearned["forget_shift"] > 0 else "over"
        parts += [f"distinguishable from retraining (p = {quality:.1g})", f"{side}-forgotten"]
    else:
        parts.append(f"not distinguishable from retraining (p = {quality:.2g})")
    name = "model_utility" if pretrained else "model_utility_retain"
    if target.get(name) and name in unlearned:
        share = 100 * unlearned[name] / target[name]
        label = "utility" if pretrained else "retain third of utility"
        parts.append(f"{label} {share:.0f} % of the target's")
    return ", ".join(parts)


def extraction_verdict(
    unlearned: Metrics, target: Metrics, training: dict[str, Any], *, collapse: str | None
) -> str:
    """Return one sentence about texts that were to become unextractable.

    E.g. *forgotten after 7 of at most 20 epochs (EL_10 0.010, MA 0.21), siblings keep 91 % of their MA*.

    Args:
        unlearned: metrics of the unlearned model.
        target: metrics of the model before unlearning.
        training: of the record: thresholds, success, epochs.
        collapse: from `collapsed`.
    """
    parts = [f"COLLAPSED ({collapse})"] if collapse else []
    els = [name for name in unlearned if name.startswith("forget_el")]
    values = [f"EL_{name.removeprefix('forget_el')} {unlearned[name]:.3f}" for name in els]
    values.append(f"MA {unlearned['forget_ma']:.3f}")
    reached = f"({', '.join(values)})"
    if "success" not in training:
        parts.append(f"trained to the end without a stop rule {reached}")
    elif training["success"]:
        most, epochs = training["max_epochs"], training["epochs_to_forget"]
        parts.append(f"forgotten after {epochs} of at most {most:g} epochs {reached}")
    else:
        parts.append(f"NOT forgotten within {training['max_epochs']:g} epochs {reached}")
    for name, label in (
        ("sibling_ma", "siblings keep {} of their MA"),
        ("reasoning", "reasoning {} of the target's"),
        ("reasoning_local", "local reasoning tasks {} of the target's"),
        ("dialogue", "dialogue {} of the target's"),
    ):
        if target.get(name) and name in unlearned:
            parts.append(label.format(f"{100 * unlearned[name] / target[name]:.0f} %"))
    return ", ".join(parts)


def collapsed(
    unlearned: Metrics, target: Metrics, generations: Sequence[str], before: Sequence[str]
) -> str | None:
    """Return why the unlearned model counts as collapsed, or None.

    Args:
        unlearned: its metrics.
        target: those of the model before unlearning.
        generations: what it generates on the retain set.
        before: what the target generated there.
    """
    ours, theirs = _retain_probability(unlearned), _retain_probability(target)
    if ours < 0.5 * theirs:
        return f"retain probability {ours:.2g}, less than half of the target's {theirs:.2g}"
    share = _degenerate_share(generations)
    if share > _degenerate_share(before) + 0.25:
        return f"{share:.0%} of its retain generations are empty or repeat themselves"
    return None


def _retain_probability(metrics: Metrics) -> float:
    """Return the probability per token on the retain set."""
    known = metrics.get("retain_prob")
    return math.exp(-metrics["retain_loss"]) if known is None else known


def is_degenerate(text: str) -> bool:
    """Return whether a generation is empty or keeps repeating a few words."""
    words = text.split()
    return not words or (len(words) >= MIN_WORDS and len(set(words)) < MIN_DISTINCT * len(words))


def cautions(forget_rows: int, facts: dict[str, object]) -> list[str]:
    """Return what must be known to read the numbers.

    Args:
        forget_rows: rows that forget quality compares.
        facts: of the run's record, its protocol and its init.
    """
    notes = []
    if 0 < forget_rows <= FEW_ROWS:
        notes.append(
            f"forget quality compares only {forget_rows} rows of few authors and has little power: "
            "even untouched targets can pass p > .05"
        )
    if facts.get("epsilon_dominates"):
        notes.append(
            "epsilon exceeds most of the retain Fisher, so FILA's importance is nearly that of the "
            "forget set alone; see init.epsilon_mode=relative"
        )
    if facts.get("limit"):
        notes.append(f"abilities and perplexities are of the first {facts['limit']} documents each")
    missing = facts.get("missing")
    if isinstance(missing, dict) and missing:
        notes.append(f"absent, their data could not be had: {', '.join(missing)}")
    return notes


def _degenerate_share(texts: Sequence[str]) -> float:
    return sum(map(is_degenerate, texts)) / len(texts) if texts else 0.0
