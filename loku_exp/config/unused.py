"""What a command line says that nothing of its run would read: refused, so that nothing is ignored."""

import re

from loku_exp.config.schema import PARTS, Config


def unused_problems(overrides: list[str], config: Config) -> list[str]:
    """Return a line for each override that changes nothing, with the reason.

    Args:
        overrides: as typed; what a yaml brings may wait for a run that reads it.
        config: what they compose to.
    """
    unread = _unread_groups(config) | _unread_keys(config)
    if config.target.run is None and "target=run" in overrides:
        unread["target.run"] = "target=run starts from a run; give its folder, or use target=model"
    return [
        f"{override}: {why}"
        for override in overrides
        for key, why in unread.items()
        if re.match(rf"[+~]*{re.escape(key)}[.=@]", override)
    ]


def _unread_groups(config: Config) -> dict[str, str]:
    """Return the groups that the method takes nothing of, and why."""
    if not config.unlearn:
        why = "unlearn=false only evaluates, and takes no {}; remove it"
        return {group: why.format(group) for group in [*PARTS, "method"]}
    why = f"method={config.method.name} takes no {{}}; remove it, or use method=gradient"
    return {group: why.format(group) for group in config.unused_groups()}


def _unread_keys(config: Config) -> dict[str, str]:
    """Return keys beside which another one stands that leaves them nothing to do."""
    target, evaluation, found = config.target, config.evaluation, {}
    trained = config.reference.source == "train"
    if config.model.weights != "random":  # for timing: whatever stands beside it
        if not target.made_here:
            given = f"target.path={target.path}" if target.path else f"target.run={target.run}"
            found["target.seed"] = f"{given} is given, and nothing of it is drawn here; remove it"
        if not trained:
            found["reference.seed"] = "no reference is fine-tuned here; remove it"
        if target.path and not trained:
            found["model.finetuning"] = (
                "neither target nor reference is fine-tuned here; remove it, or have the target made: "
                "target.path=null"
            )
    if not evaluation.abilities:
        names = ("data_dir", "texts_dir", "skip_missing")
        wanted = "no abilities are asked for; add evaluation.abilities=[local], or remove it"
        found |= {f"evaluation.{k}": wanted for k in names if getattr(evaluation, k)}
    if not evaluation.tasks and evaluation.include_path:
        wanted = "no tasks are asked for; add evaluation.tasks=[NAME], or remove it"
        found["evaluation.include_path"] = wanted
    kind, rate = config.lora.kind, config.training.learning_rate
    if config.uses("recipe") and not config.attacks and rate != config.model.learning_rates[kind]:
        found[f"model.learning_rates.{kind}"] = (
            f"training.learning_rate={rate:g} is given, by you, a preset or the recipe; set that"
        )
    return found
