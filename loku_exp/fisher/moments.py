"""Second moments of what linear layers read and give, from forward passes alone."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from loku_exp.data.batches import pad, to_device
from loku_exp.data.records import Example, Sequence
from loku_exp.errors import ModelError
from loku_exp.fisher.measure import draw_retain
from loku_exp.inits.interface import MeasureMoments
from loku_exp.models.head import hidden_before_head
from loku_exp.models.load import LinearLayer, linear_layers
from loku_exp.models.memory import fits

TEXTS = 8  # of a forward pass; changes no number
Side = Literal["inputs", "outputs"]
By = Literal["token", "text"]


def moments_measure(
    model: nn.Module,
    forget: list[Example],
    retain: list[Example],
    spent: Callable[[int], None],
    adapted: Mapping[str, Any] | None = None,
) -> MeasureMoments:
    """Return the callback that second moments are measured with.

    Args:
        model: the target model, or one that computes its function while this is called.
        forget: the forget set.
        retain: the retain set to draw from.
        spent: is told the FLOPs of what was measured.
        adapted: the layers by name, where they are no plain linear ones; None: all linear layers.
    """

    def measure(
        names: list[str],
        *,
        of: Literal["forget", "retain"],
        side: Side,
        by: By,
        number: int | None = None,
        seed: int = 0,
    ) -> Iterator[Tensor]:
        """Yield a layer's (d, d) moment, for each name in order; see `second_moments`."""
        if of == "forget":
            drawn = forget[:number]
        else:
            drawn = draw_retain(retain, min(number or len(forget), len(retain)), seed)
        layers = linear_layers(model) if adapted is None else adapted
        texts = [record.answer for record in drawn]
        chosen = {name: layers[name] for name in names}
        return second_moments(model, chosen, texts, side=side, by=by, spent=spent)

    return measure


def second_moments(
    model: nn.Module,
    layers: dict[str, LinearLayer],
    texts: list[Sequence],
    *,
    side: Side,
    by: By,
    spent: Callable[[int], None] = lambda _: None,
) -> Iterator[Tensor]:
    """Yield for each layer the mean of ``x x^T``, on the model's device: fp32 by token, fp64 by text.

    Texts are fewer than outputs, so what little tells them apart must not drown in the sums' rounding.
    As many layers are measured in one round of forward passes as have room.

    Args:
        model: in evaluation mode; left as it was.
        layers: by name.
        texts: at least one; padding is left out.
        side: whether x is what a layer reads (d = in) or gives (d = out, its bias included).
        by: ``token``: x is of each token; ``text``: the sum over a text's tokens.
        spent: is told the FLOPs.

    Raises:
        ModelError: a layer is not called once a pass with (texts, tokens, d), so that nobody can say
            whose a row is.
    """
    waiting = list(layers)
    while waiting:
        chunk = _with_room(layers, waiting, by, next(model.parameters()).device)
        waiting = waiting[len(chunk) :]
        with FlopCounterMode(display=False) as counter:
            sums = _sums(model, {name: layers[name] for name in chunk}, texts, side, by)
        spent(counter.get_total_flops())
        count = len(texts) if by == "text" else sum(len(text.ids) for text in texts)
        for name in chunk:
            yield sums.pop(name) / count


def _with_room(
    layers: dict[str, LinearLayer], names: list[str], by: By, device: torch.device
) -> list[str]:
    """Return the first of these layers whose moments fit together, at least one."""
    chunk: list[str] = []
    needed = 0
    for name in names:
        outputs, inputs = layers[name].weight.shape
        # a Conv1D's weight lies the other way round; the larger side is an upper bound
        needed += (8 if by == "text" else 4) * max(outputs, inputs) ** 2
        if chunk and not fits(needed, device):
            break
        chunk.append(name)
    return chunk


@torch.no_grad()
def _sums(
    model: nn.Module,
    layers: dict[str, LinearLayer],
    texts: list[Sequence],
    side: Side,
    by: By,
) -> dict[str, Tensor]:
    sums: dict[str, Tensor] = {}
    mask: Tensor
    seen: dict[str, int]

    def hook(name: str) -> Any:
        """Return what adds a pass of a layer to its sum."""

        def add(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            """Add the products of a pass, padding left out."""
            x = args[0] if side == "inputs" else output
            seen[name] = seen.get(name, 0) + 1
            if x.shape[:-1] != mask.shape or seen[name] > 1:
                raise ModelError(
                    f"the linear layer {name} is not called once with the tokens of each text, so its "
                    "activations cannot be told apart; use an init without them, e.g. init=fila"
                )
            wide = by == "text" and x.device.type != "mps"  # which has no fp64
            x = torch.where(mask[..., None], x.double() if wide else x.float(), 0)
            rows = x.sum(1) if by == "text" else x.flatten(0, 1)
            product = rows.T @ rows
            sums[name] = sums[name].add_(product) if name in sums else product

        return add

    handles = [layer.register_forward_hook(hook(name)) for name, layer in layers.items()]
    try:
        for first in range(0, len(texts), TEXTS):
            batch = to_device(pad(texts[first : first + TEXTS]), next(model.parameters()).device)
            mask, seen = batch["attention_mask"].bool(), {}
            hidden_before_head(model, batch)
            for name in layers.keys() - seen.keys():
                raise ModelError(f"the linear layer {name} is not called by the model")
    finally:
        for handle in handles:
            handle.remove()
    return sums
