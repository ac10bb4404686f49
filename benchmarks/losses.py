"""IHL forward and backward at GPT-Neo-125M's head, beside the two matrix products it cannot avoid."""

import torch

from benchmarks.measure import Row, extra_memory, interleaved
from loku_exp.losses.head import VOCABULARY_BLOCK, apply_term
from loku_exp.losses.terms import inverted_hinge

N, V, D = 2048, 50257, 768


def rows() -> list[Row]:
    torch.manual_seed(0)
    hidden = torch.randn(N, D, requires_grad=True)
    head = torch.nn.Linear(D, V, bias=False).requires_grad_(False)
    labels = torch.randint(V, (N,))

    def ours() -> None:
        hidden.grad = None
        apply_term(inverted_hinge, hidden, labels, head).mean().backward()

    chunks = hidden.detach().split(256)
    slopes = torch.randn(256, V)

    def products() -> None:
        for chunk in chunks:
            for block in head.weight.split(VOCABULARY_BLOCK):
                chunk @ block.T
            slopes @ head.weight

    seconds = interleaved({"ours": ours, "products": products}, repeats=2)
    memory = extra_memory(ours)
    return [
        Row(
            "IHL forward + backward",
            seconds["ours"] / seconds["products"],
            1.3,
            "x its matrix products",
            f"N={N}, V={V}, d={D}, fp32: {seconds['ours']:.2f} s, products {seconds['products']:.2f} s",
        ),
        Row(
            "IHL extra memory",
            memory / (4 * N * V),
            0.2,
            "of one (N, V) fp32 tensor",
            f"{memory / 2**20:.0f} MiB, the tensor {4 * N * V / 2**20:.0f} MiB",
        ),
    ]
