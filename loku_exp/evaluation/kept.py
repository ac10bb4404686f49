"""What a model kept of its target's, in words."""

from collections.abc import Mapping

from loku_exp.evaluation.suite import Evaluation

ABILITIES = {
    "reasoning": "reasoning {} of the target's",
    "reasoning_predecessor": "reasoning {} of the target's",
    "reasoning_local": "local reasoning tasks {} of the target's",
    "dialogue": "dialogue {} of the target's",
}


def kept(
    model: Evaluation, target: Evaluation, phrases: Mapping[str, str] = ABILITIES
) -> list[str]:
    """Return a phrase for each metric that both have and the target has any of.

    Args:
        model: of which it is said.
        target: what it had before.
        phrases: by metric, the phrase around the share.
    """
    return [
        phrase.format(f"{100 * model.metrics[name] / target.metrics[name]:.0f} %")
        for name, phrase in phrases.items()
        if target.metrics.get(name) and name in model.metrics
    ]
