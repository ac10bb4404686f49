"""A model in memory, unlearned or evaluated in three lines: the command's run, and its very numbers.

Model and texts are written to folders named by their content, and the run is that of the command line on
them; so what was run before is shown, and a run that was ended goes on.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loku_exp.data.in_memory import listed, write_rows
from loku_exp.errors import UserError
from loku_exp.models.in_memory import check_saveable, saved_model
from loku_exp.results import files
from loku_exp.results.schema import Record
from loku_exp.results.table import header_and_rows, notes, title
from loku_exp.runtime.finished import DONE, is_done, shipped

if TYPE_CHECKING:
    from pandas import DataFrame

    from loku_exp.config.schema import Config

Texts = Iterable[str] | Iterable[dict[str, Any]]
"""Plain texts; or rows with ``question`` and ``answer``, and what else `loku_exp.data.own_qa` reads. A
list, a generator, an array, a Series, or a DataFrame of rows."""


@dataclass(frozen=True)
class Results:
    """A finished run; shown as its table in a notebook.

    Attributes:
        folder: of the run; everything is in it.
    """

    folder: Path

    @cached_property
    def record(self) -> Record:
        """Its ``metrics.json``."""
        return files.read(self.folder)

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """Value by model and metric; an absent metric is absent."""
        return {name: dict(model.metrics) for name, model in self.record.models.items()}

    @property
    def frame(self) -> "DataFrame":
        """The tidy frame of `loku_exp.load_runs`, of this run alone."""
        from loku_exp.report.collect import collect
        from loku_exp.report.frame import tidy

        return tidy(collect(self.folder).runs)

    def model(self, target: Any) -> Any:
        """Return the unlearned model: its adapter on the untouched target, or all weights.

        Args:
            target: what was unlearned from, as it was; the adapter is put on it in place.

        Raises:
            UserError: the run left neither, or what it left is damaged.
        """
        kind, place = shipped(self.folder) or (None, self.folder)
        if kind is None:
            raise UserError(
                f"{self.folder}: this run left no adapter and no model; it only evaluates, or its "
                "method trains none"
            )
        if kind == "adapter":
            from peft import PeftModel

            return PeftModel.from_pretrained(target, str(place)).eval()
        model = type(target).from_pretrained(str(place), dtype=target.dtype)
        return model.to(target.device).eval()

    def __str__(self) -> str:
        header, rows = header_and_rows(self.record)
        cells = [header, *rows]
        widths = [max(len(row[place]) for row in cells) for place in range(len(header))]
        lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in cells]
        return "\n".join([title(self.record), *lines, *notes(self.record)])

    def _repr_html_(self) -> str:
        import pandas as pd
        from markupsafe import escape

        header, rows = header_and_rows(self.record)
        table = pd.DataFrame(rows, columns=header).to_html(index=False)
        said = "".join(f"<p>{escape(line)}</p>" for line in notes(self.record))
        return f"<p><b>{escape(title(self.record))}</b></p>{table}{said}"


def load_run(folder: str | Path) -> Results:
    """Return a finished run: record, frame, and its model.

    Raises:
        UserError: it is none.
    """
    place = Path(folder).expanduser()
    if not is_done(place):
        raise UserError(f"{place}: not the folder of a finished run (it has no {DONE})")
    return Results(place)


def unlearn_in_memory(
    model: Any,
    tokenizer: Any,
    *overrides: str,
    forget: Texts,
    retain: Texts,
    holdout: Iterable[str] | None = None,
    loss: str = "ihl",
    init: str = "fila",
    output_dir: str | Path = "outputs",
) -> tuple[Any, Results]:
    """Unlearn texts (or questions with answers) from a causal language model in memory.

    Args:
        model: of transformers, with no adapter on it; it is left as it is.
        tokenizer: its own.
        overrides: anything the command line takes, e.g. ``"lora.rank=4"``, ``"training.epochs=5"``.
        forget: what is to be forgotten.
        retain: what is to be kept.
        holdout: texts like the forget set that it has never seen.
        loss: a loss by name.
        init: an init by name.
        output_dir: for the run, and for what it starts from.

    Returns:
        The unlearned model, a copy, and the results.

    Raises:
        UserError: as the command line has it.
    """
    sets = {"forget": forget, "retain": retain} | ({} if holdout is None else {"holdout": holdout})
    texts = {name: listed(name, rows) for name, rows in sets.items()}
    kind = "qa" if isinstance(texts["forget"][0], dict) else "texts"
    place = Path(output_dir).expanduser()
    given = [f"dataset={kind}", f"loss={loss}", f"init={init}"]
    given += [_given(f"dataset.{name}", write_rows(rows, place)) for name, rows in texts.items()]
    results = _run(model, tokenizer, place, [*given, *overrides])
    again = type(model).from_pretrained(
        str(saved_model(model, tokenizer, place)),
        dtype=model.dtype,
        attn_implementation=_attention(model),
    )
    return results.model(again.to(model.device)), results


def evaluate_in_memory(
    model: Any,
    tokenizer: Any,
    *overrides: str,
    dataset: str,
    reference: Any = None,
    output_dir: str | Path = "outputs",
) -> Results:
    """Evaluate a causal language model in memory as the target of a dataset.

    Args:
        model: of transformers, with no adapter on it; it is left as it is.
        tokenizer: its own.
        overrides: anything the command line takes, e.g. ``"dataset.path=DIR"``.
        dataset: by name.
        reference: the model that never saw the forget set: one in memory, or a folder or hub id.
        output_dir: for the run, and for what it starts from.

    Raises:
        UserError: as the command line has it.
    """
    place = Path(output_dir).expanduser()
    given = [f"dataset={dataset}", "unlearn=false"]
    if reference is None:
        return _run(model, tokenizer, place, [*given, "reference.source=none", *overrides])
    given.append("reference.source=path")
    path = reference
    if not isinstance(reference, str | Path):
        check_saveable(reference, tokenizer, "reference")
        _rehearse(model, tokenizer, place, [*given, "reference.path=a/rehearsal", *overrides])
        path = saved_model(reference, tokenizer, place)
    return _run(model, tokenizer, place, [*given, _given("reference.path", path), *overrides])


def _rehearse(model: Any, tokenizer: Any, place: Path, overrides: list[str]) -> list[str]:
    """Check a run's settings before a model is written; return those that the model itself gives."""
    from loku_exp.config.compose import compose_config

    check_saveable(model, tokenizer)
    given = [
        "model=hf", f"model.attention={_attention(model)}", _given("output_dir", place),
        f"model.dtype={str(model.dtype).removeprefix('torch.')}", f"device={model.device}",
    ]  # fmt: skip
    compose_config([*given, "model.path=a/rehearsal", *overrides])
    return given


def _run(model: Any, tokenizer: Any, place: Path, overrides: list[str]) -> Results:
    import torch

    from loku_exp.config.compose import compose_config
    from loku_exp.startup import prepare_environment, run_tracked

    given = _rehearse(model, tokenizer, place, overrides)
    given.append(_given("model.path", saved_model(model, tokenizer, place)))
    config: Config = compose_config([*given, *overrides])
    prepare_environment(config)
    threads = torch.get_num_threads()  # of the session; a run has its own
    try:
        return Results(run_tracked(config))
    finally:
        torch.set_num_threads(threads)


def _given(key: str, place: str | Path) -> str:
    """Return the override that names a place, whatever its characters."""
    from loku_exp.config.composing import quoted

    return f"{key}={quoted(str(place))}"


def _attention(model: Any) -> str:
    return str(getattr(model.config, "_attn_implementation", None) or "eager")
