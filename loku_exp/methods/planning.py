"""What an unlearning by gradient steps will do, known before it begins: updates, examples, memory."""

import logging
from functools import partial

from torch import nn

from loku_exp.data.batches import Stream
from loku_exp.data.records import Records
from loku_exp.errors import TrainingError, UserError
from loku_exp.fisher.measure import draw_retain
from loku_exp.losses import dry_run
from loku_exp.methods.adapter import Adapter
from loku_exp.models import memory
from loku_exp.runtime import distributed
from loku_exp.runtime.chosen import Chosen
from loku_exp.runtime.seeds import derive
from loku_exp.runtime.settings import Recipe
from loku_exp.training.schedule import Plan

log = logging.getLogger(__name__)


def plan_of(recipe: Recipe, num_forget: int) -> Plan:
    """Return the plan of an unlearning.

    Raises:
        TrainingError: it is less than one update, or a micro-batch would have no retain example.
    """
    plan = Plan.of(recipe, num_forget, distributed.size())
    drawn = recipe.retain_batch_size
    if drawn is not None and drawn * plan.micro_batch_size < plan.batch_size:
        raise TrainingError(
            f"training.retain_batch_size={drawn} leaves some of the "
            f"{plan.batch_size // plan.micro_batch_size} micro-batches of an update without a retain "
            "example; raise it, or training.micro_batch_size"
        )
    return plan


def problems(
    records: Records,
    loss: Chosen,
    init: Chosen | None,
    recipe: Recipe,
    vocabulary: int,
    layers: int,
    adapter: Adapter | None = None,
) -> list[str]:
    """Return what would end this method, a line each.

    Args:
        records: of the run.
        loss: tried on two rows.
        init: its ``num_retain``, if it has one, must be there; null: as many as forget examples.
        recipe: must make at least one update.
        vocabulary: tokens of the tokenizer.
        layers: of the model.
        adapter: what is trained; None for all weights.
    """
    found = []
    known = records.batch_names()
    unknown = [name for name in loss.inputs if name not in known]
    if unknown:
        return [
            f"loss={loss.name}: it wants the batch '{unknown[0]}', and this dataset has "
            f"{', '.join(known)}; take another loss or a dataset that has it (in a loss of your own a knob "
            "must be keyword-only, behind a *)"
        ]
    try:
        plan_of(recipe, len(records.forget))
        if init and "num_retain" in init.knobs:
            count = init.knobs["num_retain"]
            draw_retain(records.retain, len(records.forget) if count is None else count, seed=0)
    except TrainingError as error:
        found.append(f"training.{str(error).removeprefix('training.')}")
    except UserError as error:
        found.append(str(error))
    texts, _ = records.batches(loss.inputs)
    empty = [name for name, rows in texts.items() if not rows]
    if empty:
        return [
            *found,
            f"loss={loss.name}: it wants the batch '{empty[0]}', and this dataset has 0 such rows; give "
            "it some, or use a loss without that batch",
        ]
    called = partial(loss.resolve(), **loss.knobs)
    adapted = adapter is not None
    return found + dry_run.problems(loss.name, called, texts, vocabulary, layers, adapted)


def stream_of(
    records: Records, inputs: tuple[str, ...], recipe: Recipe, plan: Plan, seed: int
) -> Stream:
    """Return the examples of the whole unlearning, in order.

    The forget set is among them whether the loss asks for it or not: an epoch is a pass over it, and what
    is paired with it stands beside its rows.
    """
    sets, paired = records.batches({"forget", *inputs})
    per_update = plan.batch_size if recipe.reduction == "update" else None
    return Stream(
        sets,
        plan.num_items,
        derive(seed, "order"),
        items_per_update=per_update,
        drawn_per_update=recipe.retain_batch_size,
        bucket=plan.bucket(recipe),
        paired=paired,
    )


def is_checkpointed(model: nn.Module, stream: Stream, recipe: Recipe, plan: Plan) -> bool:
    """Return whether activations are computed twice to save memory; ``auto``: where they would not fit."""
    if recipe.gradient_checkpointing != "auto":
        return recipe.gradient_checkpointing
    device = next(model.parameters()).device
    longest = max(len(row.ids) for rows in stream.sequences.values() for row in rows)
    an_item = sum(max(map(len, items)) for items in stream.order.values())
    needed = memory.activation_bytes(model, plan.micro_batch_size * an_item, longest)
    if memory.fits(needed, device):
        return False
    log.info(
        "activations of a micro-batch need up to %s, %s are free: gradient checkpointing is on",
        memory.gibibytes(needed),
        memory.gibibytes(memory.free_memory(device)),
    )
    return True
