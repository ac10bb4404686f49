"""How a model uses its linear layers, read off one forward pass of two short texts.

Where a layer is called once with (B, T, in), row b of its input and of its output's gradient belongs to
text b, so hooks give every text's own gradient. Elsewhere nobody can say whose a row is: OPT calls its
feed-forward layers with (B T, in), an expert sees some of the tokens, a shared layer is called twice,
Mamba takes a weight without calling its layer. Such a weight's gradient is left to autograd, one group
of texts at a time.
"""

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from loku_exp.data.batches import pad, to_device
from loku_exp.data.records import Sequence
from loku_exp.errors import ModelError
from loku_exp.models.head import hidden_before_head
from loku_exp.models.load import LinearLayer

TEXTS, TOKENS = 2, 3  # of the probe; different, so that (T, B, in) is not taken for (B, T, in)


def called_by_text(model: nn.Module, layers: dict[str, LinearLayer]) -> set[str]:
    """Return the layers that are called once with (B, T, in), and whose output hangs on the embedding.

    Args:
        model: in evaluation mode, its embedding's output requiring a gradient; left as it was.
        layers: the linear layers, by name.

    Raises:
        ModelError: two of them share one weight.
    """
    _check_shared(layers)
    shapes: dict[str, list[tuple[int, ...]]] = {name: [] for name in layers}

    def watch(name: str, layer: LinearLayer) -> RemovableHandle:
        def note(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            known = bool(inputs) and output.requires_grad
            shapes[name].append(tuple(inputs[0].shape[:-1]) if known else ())

        return layer.register_forward_hook(note)

    ids = tuple(range(TOKENS))
    batch = to_device(pad([Sequence(ids, ids)] * TEXTS), next(model.parameters()).device)
    handles = [watch(name, layer) for name, layer in layers.items()]
    try:
        with torch.enable_grad():
            hidden_before_head(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    return {name for name, seen in shapes.items() if seen == [(TEXTS, TOKENS)]}


def _check_shared(layers: dict[str, LinearLayer]) -> None:
    owners: dict[int, str] = {}
    for name, layer in layers.items():
        other = owners.setdefault(id(layer.weight), name)
        if other != name:
            raise ModelError(
                f"the linear layers {other} and {name} share one weight, whose Fisher information belongs "
                "to neither alone; use init=vanilla, or lora=none"
            )
