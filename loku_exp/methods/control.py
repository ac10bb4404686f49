"""Negative controls: models whose judgement is known beforehand, put in the place of an unlearned one.

They go through the whole evaluation like any method's subject. A bench that calls one of them forgotten, or
the second reference not, judges wrongly. ``make controls`` runs all of them and compares.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from loku_exp.data.batches import Stream
from loku_exp.data.records import Example, Records
from loku_exp.losses.builtin import ga, language_modelling
from loku_exp.losses.scores import LossTerms
from loku_exp.methods.refusing import Refusing
from loku_exp.models.identity import NOT_READ
from loku_exp.runtime.cache import digest, folder_digest
from loku_exp.runtime.hub import expanded, is_local
from loku_exp.runtime.seeds import derive
from loku_exp.runtime.settings import Optimization
from loku_exp.subject import Outcome, Report, Subject
from loku_exp.training.progress import TrainingProgress
from loku_exp.training.schedule import Plan
from loku_exp.training.trainer import Objective, fit
from loku_exp.workspace import Workspace

CONTROL_FORMAT = 2  # raise by hand whenever an unchanged control gives another model
REFUSAL = " I don't know."
NOISE = 1.0  # standard deviations of the hidden states before the head
Kind = Literal[
    "untouched", "weights", "random", "refusal", "noise", "retain_more", "ascent", "shuffled_head",
    "one_token",
]  # fmt: skip


def control(
    target: Subject, records: Records, workspace: Workspace, *, kind: Kind, path: str | None
) -> Outcome:
    """Return a model whose judgement is known.

    Args:
        target: what most of them are made of.
        records: forget and retain.
        workspace: of the run.
        kind: ``untouched`` (the target itself), ``weights`` (those at `path`, e.g. of a second
            reference), ``random`` (weights drawn anew), ``refusal`` ("I don't know." before every answer),
            ``noise`` (on the hidden states before the output head), ``retain_more`` (the target trained
            further on the retain set), ``ascent`` (far too much gradient ascent), ``shuffled_head`` (the
            output head's rows permuted), ``one_token`` (the same token whatever is asked).
        path: folder of a model, for ``weights``.
    """
    recipe = {
        "format": CONTROL_FORMAT, "kind": kind, "target": target.identity,
        "path": folder_digest(Path(path).expanduser(), NOT_READ) if path else None,
        "rows": digest([row.answer.ids for row in [*records.forget, *records.retain]]),
        "seed": workspace.seed,
    }  # fmt: skip
    make = _MAKERS[kind]
    trained = None
    if kind in _TRAININGS:
        train = partial(_trained, target, kind, records, workspace.seed)
        trained = workspace.cache.entry("controls", recipe, train)
    subject = replace(
        target,
        name="unlearned",
        identity=digest(recipe),
        load=partial(_load, target, make, workspace, trained or path),
        derived_from=target.name,
        of_run=True,
        reads_prompts=kind == "refusal",
        path=None,
    )
    return Outcome(subject, Report(protocol={"control": kind}))


def problems(*, kind: Kind, path: str | None, architecture: Any, records: Records) -> list[str]:
    """Return whether `path` is missing, there and not read, or of another kind of model than the run's.

    What is wrong with the weights themselves is found where those of all models are looked at. And whether
    there are no rows to train on.
    """
    rows = _TRAININGS[kind][0] if kind in _TRAININGS else None
    if rows and not getattr(records, rows):
        return [
            f"method.kind={kind} trains on the {rows} set, and this dataset has 0 such rows; give it some, "
            "or take another kind"
        ]
    if kind != "weights":
        unread = (
            f"method.path={path} is read by method.kind=weights alone; leave one of the two out"
        )
        return [unread] if path else []
    if not path:
        return ["method.kind=weights needs the folder of a model: method.path=DIR"]
    if not is_local(path):
        return [f"method.path={path}: no such folder"]
    try:
        there = PretrainedConfig.get_config_dict(expanded(path))[0].get("model_type")
    except OSError:
        return []
    if there != architecture.model_type:
        return [
            f"method.path={path}: a {there} model, and the run's is a {architecture.model_type}; give one "
            "of the same architecture"
        ]
    return []


def _load(
    target: Subject,
    make: Callable[..., Any],
    workspace: Workspace,
    folder: Path | str | None,
    dtype: str | None = None,
) -> Any:
    model = target.load(dtype=dtype)  # type: ignore[misc]
    generator = torch.Generator().manual_seed(derive(workspace.seed, "control"))
    with torch.no_grad():
        return make(model, generator=generator, tokenizer=workspace.tokenizer, folder=folder).eval()


def _untouched(model: Any, **_: Any) -> Any:
    return model


def _weights(model: Any, folder: str, **_: Any) -> Any:
    attention = model.config._attn_implementation  # what the run's record says of all its models
    made = type(model).from_pretrained(
        expanded(str(folder)), dtype=model.dtype, attn_implementation=attention
    )
    return made.to(model.device)


def _random(model: Any, generator: torch.Generator, **_: Any) -> Any:
    for parameter in model.parameters():
        if parameter.dim() > 1:
            fresh = (
                torch.randn(parameter.shape, generator=generator) * parameter.float().std().cpu()
            )
            parameter.copy_(fresh)
    return model


def _refusing(model: Any, tokenizer: Any, **_: Any) -> Any:
    return Refusing(model, tokenizer(REFUSAL, add_special_tokens=False).input_ids)


def _noisy(model: Any, generator: torch.Generator, **_: Any) -> Any:
    head = model.get_output_embeddings()
    width = head.in_features
    mixed = (torch.randn(width, width, generator=generator) / width**0.5).to(head.weight.device)

    def disturb(_: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        # A function of the token's own state: the same however texts are batched, or a cache is used.
        hidden = arguments[0].float()
        spread = hidden.std(-1, keepdim=True)
        noise = 2**0.5 * torch.sin(7 * (hidden / spread) @ mixed)
        return ((hidden + NOISE * spread * noise).to(arguments[0]), *arguments[1:])

    head.register_forward_pre_hook(disturb)
    return model


def _shuffled(model: Any, generator: torch.Generator, **_: Any) -> Any:
    head = _untied_head(model)
    order = torch.randperm(len(head.weight), generator=generator)
    head.weight.copy_(head.weight[order].clone())
    return model


def _untied_head(model: Any) -> Any:
    """Give a model an output head of its own, where it shares one with its embedding."""
    head = model.get_output_embeddings()
    head.weight = nn.Parameter(head.weight.clone())
    model.config.tie_word_embeddings = False
    return head


def _one_token(model: Any, **_: Any) -> Any:
    head = _untied_head(model)
    head.weight = nn.Parameter(torch.zeros_like(head.weight))
    head.bias = nn.Parameter(torch.zeros(len(head.weight)).to(head.weight))
    head.bias[len(head.weight) // 2] = 20.0
    return model


_MAKERS: dict[str, Callable[..., Any]] = {
    "untouched": _untouched, "weights": _weights, "random": _random, "refusal": _refusing,
    "noise": _noisy, "retain_more": _weights, "ascent": _weights, "shuffled_head": _shuffled,
    "one_token": _one_token,
}  # fmt: skip
# kind: which rows, the loss, passes over them, learning rate; all ours
_TRAININGS: dict[str, tuple[str, Callable[..., LossTerms], float, float]] = {
    "retain_more": ("retain", language_modelling, 3.0, 5e-4),
    "ascent": ("forget", lambda rows: ga(forget=rows), 20.0, 1e-3),
}


def _trained(target: Subject, kind: str, records: Records, seed: int, folder: Path) -> None:
    """Train all weights of the target, and write them."""
    name, loss, epochs, rate = _TRAININGS[kind]
    rows: list[Example] = getattr(records, name)
    size = min(8, len(rows))
    recipe = Optimization(
        epochs=epochs, batch_size=size, micro_batch_size=size, learning_rate=rate, weight_decay=0.0,
        betas=(0.9, 0.999), warmup_epochs=0.0, schedule="constant", max_grad_norm=1.0, bucket=None,
        autocast="none",
    )  # fmt: skip
    model = target.load(dtype="float32")  # type: ignore[misc]
    plan = Plan.of(recipe, len(rows))
    stream = Stream({"rows": [row.answer for row in rows]}, plan.num_items, derive(seed, kind))
    fit(
        model,
        stream,
        Objective(loss, inputs=("rows",)),
        recipe,
        plan,
        folder=folder / ".staging",
        seed=derive(seed, kind, "dropout"),
        callbacks=[TrainingProgress(f"control {kind}")],
    )
    model.save_pretrained(str(folder))
