"""Resolve a configuration for the machine it runs on: once, before anything depends on it."""

from transformers import PreTrainedTokenizerBase

from loku_exp.config.schema import Config
from loku_exp.models.load import attention_of
from loku_exp.runtime import distributed
from loku_exp.runtime.machine import (
    Machine,
    resolve_attention,
    resolve_autocast,
    resolve_device,
    resolve_dtype,
)


def on_this_machine(config: Config) -> Config:
    """Return a configuration in which every ``auto`` of the machine is what it became.

    Raises:
        ModelError: there is no such device here.
    """
    device = resolve_device(config.device)
    model = config.model
    finetuning = model.finetuning.model_copy(
        update={"autocast": resolve_autocast(model.finetuning.autocast, device)}
    )
    dtype = resolve_dtype(model.dtype, device)
    attention = resolve_attention(model.attention, device, dtype)
    recipe = config.training.model_copy(
        update={"autocast": resolve_autocast(config.training.autocast, device)}
    )
    return config.model_copy(
        update={
            "device": str(device),
            "training": recipe,
            "model": model.model_copy(
                update={"finetuning": finetuning, "attention": attention, "dtype": dtype}
            ),
        }
    )


def machine_of(config: Config, tokenizer: PreTrainedTokenizerBase | None = None) -> Machine:
    """Return the machine a resolved configuration is on.

    Args:
        config: as `on_this_machine` returns it.
        tokenizer: with it, an attention that is left to transformers is what transformers takes.
    """
    return Machine(
        device=config.device,
        precision={
            "model": config.model.dtype,
            "finetuning": config.model.finetuning.autocast,
            "unlearning": config.training.autocast,
        },
        attention=attention_of(config.model, tokenizer) if tokenizer else config.model.attention,
        threads=config.threads,
        processes=distributed.size(),
    )
