"""Export what a finished run unlearned: a plain PEFT adapter for the original target, with a model card.

The adapter goes on the *untouched* target: what FILA took out of its weights is folded into the adapter
(rank 2r), so that no changed base has to be shipped. With ``lora=none`` it is the whole model.

Usage:
    python -m loku_exp.export outputs/RUN --to DIR [--base NAME]
"""

import json
import shutil
from pathlib import Path
from typing import Any

from loku_exp.errors import UserError
from loku_exp.runtime.programs import ending, parser_of

USE = {
    "adapter": """```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained({base!r})  # the target, untouched
model = PeftModel.from_pretrained(model, "DIR")  # this folder
```

The adapter has rank {rank}. It was checked when it was written: put on the target, loaded afresh, it gives
the logits of the model in memory to within {difference:.1e}.""",
    "model": """```python
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained("DIR")  # this folder
```

All weights were trained. It was checked when it was written: loaded afresh, it gives the logits of the
model in memory to within {difference:.1e}.""",
}


def main() -> None:
    """Export a run; exit code 1 with a message where it cannot be exported."""
    parser = parser_of("loku_exp.export", __doc__)
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("--to", type=Path, required=True, help="a new folder")
    parser.add_argument("--base", help="what to call the target in the card, e.g. its hub id")
    arguments = parser.parse_args()
    with ending():
        kind = export(arguments.run, arguments.to, arguments.base)
        print(f"{kind}: {arguments.to}")


def export(run: Path, to: Path, base: str | None = None) -> str:
    """Write a run's adapter (or model) with its card into a new folder, whole or not at all.

    Args:
        run: folder of a finished run.
        to: must not exist, or be empty.
        base: name of the target; None for where the run had it from.

    Returns:
        ``adapter`` or ``model``.

    Raises:
        UserError: the run is not finished, left nothing to ship, or `to` is taken.
    """
    from loku_exp.results import files as results
    from loku_exp.results import folder as runs
    from loku_exp.results.folder import DONE
    from loku_exp.runtime.cache import write_folder

    if not runs.is_done(run):
        reason = "is not finished" if (run / "config.yaml").is_file() else "is no folder of a run"
        raise UserError(f"{run} {reason}: it has no {DONE}; run its command to the end first")
    record = results.read(run)
    kind, shipped, recipe = _shipped(run, record)
    if record.models["target"].weights == "random":
        raise UserError(f"{run}: its weights are random (model.weights=random), for timing only")
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise UserError(f"--to {to}: there is something already; name a new folder")
    name = base or str(recipe["base"])

    def build(folder: Path) -> None:
        for file in shipped.iterdir():
            if file.is_file() and file.name != "manifest.json":
                shutil.copy2(file, folder)
        rank = _name_base(folder, name) if kind == "adapter" else None
        (folder / "README.md").write_text(card(record, kind, name, rank), encoding="utf-8")
        shutil.copy2(run / results.METRICS_FILE, folder)

    write_folder(to, build, {"run": record.run.id, "base": name})
    return kind


def card(record: Any, kind: str, base: str, rank: int | None) -> str:
    """Return the model card: how to load it, what it is, the result table. It quotes no forget text.

    Args:
        record: of the run.
        kind: ``adapter`` or ``model``.
        base: name of the target.
        rank: of the adapter.
    """
    from loku_exp.results import files as results

    difference = record.training["reload_difference"]
    head = ["---", f"base_model: {json.dumps(base)}"]
    head += [f"library_name: {'peft' if kind == 'adapter' else 'transformers'}"]
    head += ["tags: [unlearning, loku_exp]", "---", ""]
    title, _, table = results.markdown(record, []).partition("\n")
    made = [f"{name} {value}" for name, value in record.run.choices.items() if value is not None]
    lines = [
        title,
        "",
        *([f"**{record.run.label}.**{_caution(record)}", ""] if record.run.label else []),
        f"`{base}` after unlearning: {', '.join(made)}, seed {record.run.seed}.",
        "",
        USE[kind].format(base=base, rank=rank, difference=difference),
        "",
        "## What it forgot and what it kept",
        table,
        f"Run `{record.run.id}` of loku_exp {record.run.version}, commit {record.run.commit or 'unknown'}, "
        f"{record.run.started}; everything about it is in `{results.METRICS_FILE}`.",
    ]
    return "\n".join([*head, *lines]) + "\n"


def _caution(record: Any) -> str:
    small = record.run.toy or record.models["target"].weights == "from_scratch"
    return " It says nothing about pretrained models." if small else ""


def _shipped(run: Path, record: Any) -> tuple[str, Path, dict[str, Any]]:
    """Return what the run shipped, where it lies, and of which base it was made."""
    from loku_exp.runtime.cache import MANIFEST, is_whole

    for kind in ("adapter", "model"):
        folder = run / kind
        if folder.is_dir():
            if not is_whole(folder):
                raise UserError(
                    f"{folder} is damaged: a file is missing or of another size; delete it and "
                    f"{run}/done.json, and run the command again"
                )
            manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            return kind, folder, manifest["recipe"]
    if not record.unlearned:
        raise UserError(f"{run} left no adapter and no model: it only evaluates (unlearn=false)")
    method = record.run.choices.get("method", "gradient")
    if method != "gradient":
        raise UserError(f"{run} left no adapter and no model: method={method} trains none")
    raise UserError(
        f"{run} has lost its adapter; delete {run}/done.json, and run the command again: it goes on from "
        "the newest snapshot"
    )


def _name_base(folder: Path, base: str) -> int:
    """Write the base's name into an adapter's configuration; return the adapter's rank."""
    file = folder / "adapter_config.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content["base_model_name_or_path"] = base
    file.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return int(content["r"])


if __name__ == "__main__":
    main()
