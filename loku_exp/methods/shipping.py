"""What a user takes away of a gradient method: an adapter for the untouched target, or a model; checked."""

import logging
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn

from loku_exp.data.batches import pad, to_device
from loku_exp.data.records import Records
from loku_exp.errors import TrainingError
from loku_exp.inits.interface import Factors
from loku_exp.methods.adapter import Adapter, fold
from loku_exp.models.identity import weight_files
from loku_exp.models.origin import hand_on_origin
from loku_exp.runtime.cache import whole_folder
from loku_exp.subject import Subject
from loku_exp.workspace import Workspace

log = logging.getLogger(__name__)
# Of the logits' spread, by the base's precision. Measured: rounding gives 4e-7 in fp32, and 6e-3 (2 layers)
# to 6e-2 (30 layers, pretrained) in bf16, nearly all of it the products'; an adapter that was not folded
# 0.3 to 0.8.
TOLERANCE = {"float32": 1e-3, "float16": 2e-2, "bfloat16": 0.15}
NUM_PROBES = 4


def ship(
    unlearned: Subject,
    target: Subject,
    factors: dict[str, Factors],
    adapter: Adapter | None,
    records: Records,
    workspace: Workspace,
) -> float:
    """Write an adapter for the untouched target, or a model, and check it.

    The check loads the target afresh, puts the written adapter on it with plain peft, and compares
    logits with those of the subject.

    Returns:
        The largest difference of a logit.

    Raises:
        TrainingError: it is more than rounding can explain.
    """
    probes = [record.answer for record in records.forget[:NUM_PROBES]]
    model: Any = unlearned.load()  # type: ignore[misc]
    expected = _logits(model, probes)
    place = workspace.folder / ("model" if adapter is None else "adapter")

    def build(aside: Path) -> None:
        if adapter is None:
            model.save_pretrained(aside)
            workspace.tokenizer.save_pretrained(aside)
            hand_on_origin(target.path or "", aside)
        else:
            fold(model, factors, adapter, aside)

    weights = sorted(weight_files(target.path)) if target.path else []  # none where a hub has them
    whole_folder(place, build, {"base": target.path, "weights": weights})
    dtype = workspace.machine.precision["model"]
    if adapter is None:
        reloaded: nn.Module = type(model).from_pretrained(str(place), dtype=getattr(torch, dtype))
        reloaded.to(model.device)
    else:
        reloaded = PeftModel.from_pretrained(target.load(), str(place))  # type: ignore[misc]
    return _checked_difference(place, _logits(reloaded.eval(), probes) - expected, expected, dtype)


def _checked_difference(place: Path, difference: Tensor, expected: Tensor, dtype: str) -> float:
    share = float(_spread(difference) / _spread(expected - expected.mean(-1, keepdim=True)))
    largest = float(difference.abs().max())
    log.info(
        "%s reloaded: largest difference of a logit %.1e, %.1e of their spread",
        place.name,
        largest,
        share,
    )
    if not share <= TOLERANCE[dtype]:
        raise TrainingError(
            f"{place} does not give the logits of the model in memory (they differ by {share:.2g} of their "
            "spread); please report this with the run's log"
        )
    return largest


def _spread(logits: Tensor) -> Tensor:
    return logits.square().mean().sqrt()


@torch.no_grad()
def _logits(model: nn.Module, sequences: list[Any]) -> Tensor:
    device = next(model.parameters()).device
    batch = to_device(pad(sequences), device)
    logits = model(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False
    ).logits
    return logits[batch["attention_mask"].bool()].float().cpu()
