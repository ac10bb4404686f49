"""The nine tasks as the predecessor scores them.

Source: Jang et al., "Knowledge Unlearning for Mitigating Privacy Risks in Language Models" (arXiv
2210.01504), code joeljang/knowledge-unlearning. Accuracy is the argmax of the summed log-
probability, without length normalisation. Context and continuation are tokenised apart, and the two
together are cut from the left to 512 tokens (or the model's context). Deviations: its LAMBADA also
counts a word as right whose normalised string equals that of the teacher-forced argmax tokens; here
all tokens must be greedy. It cuts contexts of more than 512 tokens at their end before that; here
at their beginning only. It averages over batches; here over documents.
"""

import logging
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import datasets
from transformers import PreTrainedTokenizerBase

from loku_exp.data.text_files import Row, read_rows
from loku_exp.data.tokens import plain_ids
from loku_exp.errors import DataError
from loku_exp.evaluation.ability.harness_tasks import local_rows, stock_config
from loku_exp.evaluation.ability.local import lambada_question, pubmed_question
from loku_exp.evaluation.tasks import Ask, ChoiceTask, Option, Question, Request, joined

log = logging.getLogger(__name__)
CONTEXT = 512  # tokens

HUB = {
    "arc_easy": ("allenai/ai2_arc", "ARC-Easy"),
    "arc_challenge": ("allenai/ai2_arc", "ARC-Challenge"),
    "copa": ("aps/super_glue", "copa"),
    "hellaswag": ("Rowan/hellaswag", None),
    "mathqa": ("regisss/math_qa", None),
    "piqa": ("baber/piqa", None),
    "winogrande": ("allenai/winogrande", "winogrande_s"),
}
"""By task: data set and configuration; the validation split is taken."""

TEXTS = {"lambada": "lambada.csv", "pubmedqa": "pubmed_qa.csv"}
"""By task: the predecessor's own file."""

PREDECESSOR_TASKS = tuple(f"{name}_predecessor" for name in sorted([*HUB, *TEXTS]))


def predecessor_task(
    name: str,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    data_dir: Path | None,
    texts_dir: Path | None,
) -> ChoiceTask:
    """Return a task of the predecessor.

    Args:
        name: one of `PREDECESSOR_TASKS`.
        tokenizer: the model's.
        max_length: the model's context, in tokens.
        data_dir: local copies of the hub's data, ``<task>.jsonl``; where one is absent, the hub's.
        texts_dir: folder of the files named in `TEXTS`.

    Raises:
        DataError: a local file is malformed.
        OSError, ValueError, RuntimeError: data cannot be had.
    """
    task = name.removesuffix("_predecessor")
    if task in TEXTS:
        if texts_dir is None or not (texts_dir / TEXTS[task]).is_file():
            raise FileNotFoundError(f"no {TEXTS[task]} in evaluation.texts_dir={texts_dir}")
        rows = read_rows(texts_dir / TEXTS[task])
    else:
        rows = local_rows(task, data_dir) or _hub_rows(task)
    questions = [convert_or_none(task, number, row) for number, row in enumerate(rows)]
    kept = [question for question in questions if question is not None]
    if len(kept) < len(rows):
        log.info("%s: %d of %d rows are left out", name, len(rows) - len(kept), len(rows))
    if not kept:
        raise DataError(
            f"{name}: none of {len(rows)} rows can be used; the first is {rows[0].place}"
        )
    return ChoiceTask(name, kept, apart(tokenizer, max_length))


def apart(tokenizer: PreTrainedTokenizerBase, max_length: int) -> Ask:
    """Return a way to ask with ids: context and continuation tokenised apart, cut from the left."""

    def ask(context: str, continuation: str) -> Request:
        ids = joined(
            plain_ids(tokenizer, context),
            tokenizer(continuation, add_special_tokens=False)["input_ids"],
            min(CONTEXT, max_length),
        )
        return "token_scores", (context, ids)

    return ask


def convert_or_none(task: str, number: int, row: Row) -> Question | None:
    """Return the question of a row, or None where the predecessor leaves the row out or fails on it.

    Raises:
        DataError: a value is not what the hub's schema has.
    """
    try:
        return CONVERT[task](number, row)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{row.place}: malformed ({type(error).__name__}: {error})") from error


def _piqa(number: int, row: Row) -> Question:
    doc = row.values
    return _question(number, doc["goal"], [" " + doc["sol1"], " " + doc["sol2"]], doc["label"])


def _hellaswag(number: int, row: Row) -> Question:
    doc = row.values
    return _question(number, doc["ctx"], [" " + x for x in doc["endings"]], doc["label"])


def _copa(number: int, row: Row) -> Question:
    doc = row.values
    choices = [" " + doc["choice1"], " " + doc["choice2"]]
    return _question(number, doc["premise"], choices, doc["label"])


def _arc(number: int, row: Row) -> Question | None:
    choices = row.values["choices"]
    if len(choices["text"]) != 4:
        return None
    gold = list(choices["label"]).index(row.values["answerKey"])
    return _question(number, row.values["question"], [" " + x for x in choices["text"]], gold)


def _winogrande(number: int, row: Row) -> Question | None:
    """The option and the rest of the sentence, after what stands before " _"."""
    doc = row.values
    parts = doc["sentence"].split(" _")
    if len(parts) != 2 or not parts[0]:
        return None  # the predecessor's code fails on these
    choices = [f" {doc[option]}{parts[1]}" for option in ("option1", "option2")]
    return _question(number, parts[0], choices, int(doc["answer"]) - 1)


def _mathqa(number: int, row: Row) -> Question | None:
    """Choices as lm-eval cuts them (the same pattern as the predecessor's), without leading space."""
    choices = _math_choices()(row.values)
    gold = "abcde".index(row.values["correct"])
    if gold >= len(choices) or not all(choices):
        return None
    return _question(number, row.values["Problem"], choices, gold)


@cache
def _math_choices() -> Callable[[dict[str, Any]], list[str]]:
    return stock_config("mathqa")["doc_to_choice"]


CONVERT: dict[str, Callable[[int, Row], Question | None]] = {
    "arc_easy": _arc,
    "arc_challenge": _arc,
    "copa": _copa,
    "hellaswag": _hellaswag,
    "lambada": lambada_question,
    "mathqa": _mathqa,
    "piqa": _piqa,
    "pubmedqa": pubmed_question,
    "winogrande": _winogrande,
}


def _question(number: int, context: str, choices: list[str], gold: Any) -> Question:
    gold = int(gold)
    if not 0 <= gold < len(choices):
        raise ValueError(f"the label is {gold}, of {len(choices)} choices")
    return Question(number, tuple(map(partial(Option, context), choices)), gold)


def _hub_rows(task: str) -> list[Row]:
    path, name = HUB[task]
    documents = datasets.load_dataset(path, name, split="validation")
    return [Row(f"{path}, row {i}", dict(doc)) for i, doc in enumerate(documents, 1)]
