"""A tiny target, its records and a place to work in, for methods and attacks."""

from pathlib import Path

import torch

from loku_exp.config.compose import compose_config
from loku_exp.data.records import Example, Records, Sequence
from loku_exp.methods.adapter import Adapter
from loku_exp.methods.gradient import gradient
from loku_exp.runtime.cache import Cache
from loku_exp.runtime.chosen import Chosen
from loku_exp.runtime.machine import Machine
from loku_exp.subject import Outcome, Subject
from loku_exp.workspace import Workspace
from tests.helpers import random_sequence, tiny_model

ADAPTER = Adapter(2, 4, 0.0, ["q_proj", "c_fc"])
BUILTIN = "loku_exp.losses.builtin"
IHL = Chosen("ihl", f"{BUILTIN}.ihl", ("forget", "retain"), {})
VANILLA = Chosen("vanilla", "loku_exp.inits.vanilla.vanilla", ("layers",), {})
FILA = Chosen("fila", "loku_exp.inits.fila.fila", ("layers", "fisher"), {})
RECIPE = compose_config(
    ["dataset=toy_tdec", "training.epochs=6", "training.retain_batch_size=3"]
).training


class _NoTokenizer:
    """Nothing to save beside a model."""

    def save_pretrained(self, folder: Path) -> None:
        pass


def target(dtype: str = "float32") -> Subject:
    """The tiny model as a subject; every load is another object with the same weights."""

    def load(dtype: str | None = None, own: str = dtype):
        return tiny_model(dtype=getattr(torch, dtype or own))

    return Subject(
        "target", "pretrained", f"tiny {dtype}", load, reference="reference", path="tiny"
    )


def records(forget: int = 4, retain: int = 6) -> Records:
    """Random texts of nine tokens, all of them labelled."""
    texts = [random_sequence(9, 0, 61, i) for i in range(forget + retain)]
    rows = [Example(i, "", "", t.ids[:4], Sequence(t.ids, t.ids)) for i, t in enumerate(texts)]
    return Records([], [], rows[:forget], rows[forget:], {})


def workspace(folder: Path, dtype: str = "float32", seed: int = 0) -> Workspace:
    """A run's folder, with a cache of its own beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    precision = {"model": dtype, "finetuning": "none", "unlearning": "none"}
    machine = Machine("cpu", precision, "eager", 1, 1)
    return Workspace(folder, Cache(folder.parent / "cache"), seed, machine, _NoTokenizer())


def unlearned(folder: Path, dtype: str = "float32", **changes) -> Outcome:
    """Unlearn four random texts for six epochs of one update."""
    arguments = {
        "target": target(dtype),
        "records": records(),
        "workspace": workspace(folder, dtype),
        "loss": IHL,
        "init": VANILLA,
        "adapter": ADAPTER,
        "recipe": RECIPE,
        "stop": None,
    }
    return gradient(**arguments | changes)


def weights(subject: Subject) -> dict[str, torch.Tensor]:
    """The weights of a subject, loaded anew."""
    return {name: p.detach() for name, p in subject.load().named_parameters()}


def same_weights(one: Subject, two: Subject) -> None:
    """Compare bit for bit."""
    ours, theirs = weights(one), weights(two)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


@torch.no_grad()
def logits(model) -> torch.Tensor:
    """What a model says of the forget texts, (4, 9, 61)."""
    ids = torch.tensor([row.answer.ids for row in records().forget])
    return model(input_ids=ids).logits.float()
