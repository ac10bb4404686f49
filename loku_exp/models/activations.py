"""GELU's tanh form in one kernel, for GPT-Neo and Phi-1.5.

Their ``gelu_new`` is ``x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))`` (Hendrycks and Gimpel, arXiv
1606.08415, section 2). transformers computes it from eight operations and keeps four tensors of the
MLP's width for the backward pass: x, x / 2, the tanh and one plus it. Torch has the same formula as one
operation, which keeps x alone. Values are equal to rounding. The configuration is left as it is, so an
exported model is the one that was loaded.
"""

from torch import nn
from transformers.activations import NewGELUActivation


def fuse_gelu(model: nn.Module) -> None:
    """Replace each ``gelu_new`` of a model by torch's own operation, in place."""
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, nn.GELU(approximate="tanh"))
