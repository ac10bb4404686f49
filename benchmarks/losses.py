"""IHL forward and backward at GPT-Neo-125M's head, beside the two matrix products it cannot avoid."""

import torch

from benchmarks.measure import Row, extra_memory, interleaved
from loku_exp.losses.terms import inverted_hinge
from loku_exp.models.head import VOCABULARY_BLOCK, apply_term, logits_of

N, V, D = 2048, 50257, 768
FEW = 76  # labelled rows of two of TOFU's texts


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

    few = hidden.detach()[:FEW]

    def at_once() -> None:
        few @ head.weight.T

    @torch.no_grad()
    def in_blocks() -> None:
        logits_of(few, head)

    apart = interleaved({"at once": at_once, "in blocks": in_blocks}, repeats=3)
    apply_term(inverted_hinge, hidden[:FEW], labels[:FEW], head).mean().backward()  # warms up
    memory = extra_memory(ours, warmed=True)
    seconds = interleaved({"ours": ours, "products": products}, repeats=2, warmed=True)
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
        Row(
            "logits in blocks of the vocabulary: time saved",
            apart["at once"] / apart["in blocks"],
            0,
            "x",
            f"{FEW} rows, V={V}, d={D}, fp32: {1e3 * apart['in blocks']:.0f} ms, at once "
            f"{1e3 * apart['at once']:.0f} ms",
        ),
    ]
