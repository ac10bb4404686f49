"""The model card of what is exported: how to load it, what it is, its numbers for people and hub."""

from huggingface_hub import EvalResult, ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from loku_exp.results import files as results
from loku_exp.results.schema import Record
from loku_exp.runtime.hub import is_local

SERVED_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM's --max-lora-rank takes
LOAD_ADAPTER = """```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained({base!r})  # the target, untouched
model = PeftModel.from_pretrained(model, "DIR")  # this folder
```
"""
LOAD_MODEL = """```python
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained("DIR")  # this folder
```
"""


def card(record: Record, kind: str, base: str, rank: int | None, how: str = "") -> str:
    """Return the model card: how to load it, what it is, the result table. It quotes no forget text.

    Args:
        record: of the run.
        kind: ``adapter`` or ``model``.
        base: name of the target.
        rank: of the adapter.
        how: what was done to it on the way here, a sentence.
    """
    title, _, table = results.markdown(record, []).partition("\n")
    made = [f"{name} {value}" for name, value in record.run.choices.items() if value is not None]
    load = LOAD_ADAPTER.format(base=base) if kind == "adapter" else LOAD_MODEL
    lines = [
        "---",
        _metadata(record, kind, base),
        "---",
        "",
        title,
        "",
        *([f"**{record.run.label}.**{_caution(record)}", ""] if record.run.label else []),
        f"`{base}` after unlearning: {', '.join(made)}, seed {record.run.seed}.",
        "",
        load,
        " ".join(filter(None, [_checked(record, kind, rank), how])),
        *_served(rank),
        "",
        "## What it forgot and what it kept",
        table,
        f"Run `{record.run.id}` of loku_exp {record.run.version}, commit {record.run.commit or 'unknown'}, "
        f"{record.run.started}; everything about it is in `{results.METRICS_FILE}`.",
    ]
    return "\n".join(lines) + "\n"


def _metadata(record: Record, kind: str, base: str) -> str:
    """Return the yaml that the hub reads: what it is made of, and its metrics."""
    dataset = str(record.run.choices.get("dataset"))
    unlearned = record.models["unlearned"].metrics
    found = [
        EvalResult(
            task_type="text-generation",
            dataset_type=dataset,
            dataset_name=record.run.label or dataset,
            metric_type=metric.name,
            metric_name=metric.label,
            metric_value=unlearned[metric.name],
        )
        for metric in record.catalogue
        if metric.name in unlearned
    ]
    data = ModelCardData(
        base_model=base if _may_be_on_hub(base) else None,
        library_name="peft" if kind == "adapter" else "transformers",
        tags=["unlearning", "loku_exp"],
        model_name=f"{record.run.id}",
        eval_results=found,
    )
    return data.to_yaml()


def _may_be_on_hub(base: str) -> bool:
    """Return whether a base can be named in a card's metadata: the hub refuses one with a folder there."""
    try:
        validate_repo_id(base)
    except HFValidationError:
        return False
    return not is_local(base)


def _checked(record: Record, kind: str, rank: int | None) -> str:
    difference = record.training["reload_difference"]
    if kind == "adapter":
        return (
            f"The adapter has rank {rank}. As the run wrote it, it was checked: put on the target, loaded "
            f"afresh, it gives the logits of the model in memory to within {difference:.1e}."
        )
    return (
        "As the run wrote it, it was checked: loaded afresh, it gives the logits of the model in memory to "
        f"within {difference:.1e}."
    )


def _served(rank: int | None) -> list[str]:
    """Return how servers take the adapter."""
    if rank is None:
        return []
    least = next((served for served in SERVED_RANKS if served >= rank), None)
    vllm = (
        f"vLLM takes it with `--enable-lora --max-lora-rank {least} --lora-modules NAME=DIR`"
        if least
        else f"its rank is above what vLLM takes, {SERVED_RANKS[-1]}: `--rank` or `--merged` of the export"
    )
    return [
        "",
        f"Serving: {vllm}; llama.cpp after its `convert_lora_to_gguf.py`, which any rank goes through.",
    ]


def _caution(record: Record) -> str:
    small = record.run.toy or record.models["target"].weights == "from_scratch"
    return " It says nothing about pretrained models." if small else ""
