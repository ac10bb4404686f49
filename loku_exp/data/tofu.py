"""TOFU (Maini et al. 2024, arXiv 2401.06121): 200 fictitious authors with 20 questions each.

Data: hub dataset ``locuslab/TOFU`` or a folder of its json-lines files, e.g. ``forget10.json``.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from loku_exp.data.qa import QA, QACorpus
from loku_exp.errors import DataError
from loku_exp.runtime.hub import looks_like_a_path

QUESTIONS_PER_AUTHOR = 20
RETAIN_OF = {"forget01": "retain99", "forget05": "retain95", "forget10": "retain90"}
EVALUATION_SETS = {
    "retain": "retain_perturbed",
    "authors": "real_authors_perturbed",
    "facts": "world_facts_perturbed",
}


def load(
    *,
    path: str,
    forget_split: str,
    retain_split: str | None = None,
    retain_draw: Literal["uniform", "exclude_evaluated"] = "uniform",
) -> QACorpus:
    """Load one forget split of TOFU with the retain and perturbed splits that belong to it.

    Args:
        path: a folder of json-lines files, or a hub dataset id.
        forget_split: ``forget01``, ``forget05`` or ``forget10``.
        retain_split: None for the one that belongs to the forget split.
        retain_draw: ``exclude_evaluated`` leaves the rows of the retain evaluation out of the retain
            set of unlearning; all of them are in it otherwise, as in the official code.

    Raises:
        DataError: a split is missing, empty or malformed, or the hub cannot be reached.
    """
    wrong = problems(path=path, forget_split=forget_split, retain_split=retain_split)
    if wrong:
        raise DataError("\n".join(wrong))
    retain_name = RETAIN_OF[forget_split]
    full = _rows(path, "full")
    retain = _rows(path, retain_name)
    forget = _rows(path, forget_split)
    # The three splits are slices of `full`; ids and authors follow from the place in it.
    first_forget = len(full) - len(forget)
    if [full[i]["question"] for i in range(first_forget, len(full))] != [
        row["question"] for row in forget
    ]:
        raise DataError(
            f"{forget_split} in {path} is not the last {len(forget)} rows of full; the files do not "
            "belong together"
        )
    if len(retain) != first_forget:
        raise DataError(
            f"{retain_name} in {path} has {len(retain)} rows, full without {forget_split} has "
            f"{first_forget}; the files do not belong together"
        )
    evaluation = {"forget": _evaluation_set(path, f"{forget_split}_perturbed", first_forget)}
    evaluation |= {name: _evaluation_set(path, file) for name, file in EVALUATION_SETS.items()}
    training = [_qa(row, index) for index, row in enumerate(full)]
    evaluated = len(evaluation["retain"]) if retain_draw == "exclude_evaluated" else 0
    return QACorpus(
        target_training=training,
        reference_training=training[:first_forget],
        forget=training[first_forget:],
        retain=training[evaluated:first_forget],
        evaluation=evaluation,
        protocol={
            "forget_split": forget_split,
            "retain_split": retain_name,
            "retain_draw": retain_draw,
        },
    )


def problems(
    *, path: str, forget_split: str, retain_split: str | None = None, retain_draw: str = "uniform"
) -> list[str]:
    """Return what is wrong with these knobs, without loading anything from a hub."""
    found = []
    if forget_split not in RETAIN_OF:
        found.append(f"dataset.forget_split={forget_split}: choose one of {', '.join(RETAIN_OF)}")
    elif retain_split not in (None, RETAIN_OF[forget_split]):
        found.append(
            f"dataset.retain_split={retain_split} does not belong to {forget_split}, its retain split "
            f"is {RETAIN_OF[forget_split]}; leave retain_split out"
        )
    folder = Path(path).expanduser()
    if folder.is_dir() and forget_split in RETAIN_OF:
        names = ["full", forget_split, RETAIN_OF[forget_split], f"{forget_split}_perturbed"]
        names += EVALUATION_SETS.values()
        missing = [f"{name}.json" for name in names if not (folder / f"{name}.json").is_file()]
        if missing:
            found.append(f"dataset.path={path} lacks {', '.join(missing)}")
    elif not folder.is_dir() and looks_like_a_path(path):
        found.append(f"dataset.path={path}: no such folder, and not a hub id like owner/name")
    return found


def _rows(path: str, split: str) -> list[dict[str, Any]]:
    """Return the rows of one split, each with a non-empty question and answer."""
    if Path(path).expanduser().is_dir():
        rows = list(_read_json_lines(Path(path).expanduser() / f"{split}.json"))
        where = f"{Path(path).expanduser() / split}.json"
    else:
        rows, where = _read_hub(path, split), f"{path}:{split}"
    if not rows:
        raise DataError(f"{where} has no rows")
    for number, row in enumerate(rows, start=1):
        for key in ("question", "answer"):
            if not isinstance(row.get(key), str) or not row[key].strip():
                raise DataError(f"{where}, row {number}: '{key}' is missing or empty")
    return rows


def _read_json_lines(file: Path) -> Iterable[dict[str, Any]]:
    if not file.is_file():
        raise DataError(f"no file {file}; give a folder with TOFU's json-lines files")
    for number, line in enumerate(
        file.read_text(encoding="utf-8").removesuffix("\n").split("\n"), start=1
    ):
        if not line.strip():
            raise DataError(f"{file}, line {number}: empty line; expected one json object a line")
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{file}, line {number}: not a json object ({error})") from error
        if not isinstance(row, dict):
            raise DataError(f"{file}, line {number}: {type(row).__name__}, expected a json object")
        yield row


def _read_hub(path: str, split: str) -> list[dict[str, Any]]:
    import datasets

    try:
        return list(datasets.load_dataset(path, split, split="train"))
    except (OSError, ValueError) as error:  # every hub failure of `datasets` is one of the two
        raise DataError(
            f"cannot load {path}:{split} from the hub ({str(error).splitlines()[0]}); without a hub, "
            "give a folder that holds TOFU's json-lines files: dataset.path=DIR"
        ) from error


def _qa(row: dict[str, Any], index: int) -> QA:
    return QA(index, _author(index), question=row["question"], answer=row["answer"])


def _author(index: int) -> str:
    return f"author {index // QUESTIONS_PER_AUTHOR}"


def _evaluation_set(path: str, split: str, first: int = 0) -> list[QA]:
    """Return a perturbed split; where it has no paraphrase, the answer stands for it (official).

    Args:
        path: folder or hub id.
        split: name of the split.
        first: place of its first row in ``full``, from which the authors follow.
    """
    rows = []
    for index, row in enumerate(_rows(path, split)):
        wrong = row.get("perturbed_answer")
        if not isinstance(wrong, list) or not wrong:
            raise DataError(
                f"{path}:{split}, row {index + 1}: 'perturbed_answer' is missing or empty"
            )
        rows.append(
            QA(
                row=index,
                group=_author(first + index) if "paraphrased_answer" in row else f"row {index}",
                question=row["question"],
                answer=row["answer"],
                paraphrase=row.get("paraphrased_answer", row["answer"]),
                wrong=tuple(wrong),
            )
        )
    return rows
