"""What a configuration may say of an adapter, and of what goes on one."""

from loku_exp.config import components
from loku_exp.config.schema import Config
from loku_exp.runtime import distributed as parallel


def adapter_problems(config: Config) -> list[str]:
    """Return what cannot be of the adapter, its init and its regulariser."""
    problems = _shape_problems(config) if config.uses("adapter") else []
    return problems + (_regulariser_problems(config) if config.uses("loss") else [])


def _shape_problems(config: Config) -> list[str]:
    lora, init = config.lora, config.init
    values = {
        "rank": lora.rank,
        "alpha": lora.alpha,
        "dropout": lora.dropout,
        "targets": lora.targets,
    }
    if lora.kind == "full":
        problems = [
            f"lora.{key}={value}: lora=none trains all weights and has no {key}; remove one of the two"
            for key, value in (values | {"base": lora.base}).items()
            if value is not None
        ]
        if init is not None:
            problems.append(
                f"init={init.name} initialises an adapter and lora=none has none; set init=none"
            )
        return problems
    problems = [f"lora.{key} is not set" for key, value in values.items() if value is None]
    if init is None:
        problems.append("init=none leaves the adapter without an initialisation; use init=vanilla")
    if lora.base and parallel.size() > 1:
        problems.append(
            f"lora.base={lora.base}: one process trains so; leave it out under torchrun"
        )
    if lora.base and config.training.stop is not None and config.uses("stop"):
        problems.append(
            f"lora.base={lora.base}: training.stop would be checked on the rounded base, and what is "
            "evaluated is on the unrounded one; set training.stop=null, or leave lora.base out"
        )
    known = config.model.lora_targets
    if lora.targets is not None and lora.targets not in known:
        hint = components.nearest(lora.targets, known)
        problems.append(
            f"lora.targets={lora.targets}: {config.model.name} has {', '.join(known)}{hint}"
        )
    return problems


def _regulariser_problems(config: Config) -> list[str]:
    if config.regulariser is None or (config.uses("adapter") and config.lora.kind != "full"):
        return []
    return [
        f"regulariser={config.regulariser.name}: it is a term on an adapter's A and B, and there is no "
        "adapter; set regulariser=none"
    ]
