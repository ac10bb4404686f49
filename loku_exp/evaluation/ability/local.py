"""Own-named tasks on local files that are not the hub's: ``<file>_local``.

Two sources: files in the schema of MosaicML's llm-foundry (``scripts/eval/local_data``), and two
CSV files of Jang et al. ("Knowledge Unlearning", arXiv 2210.01504). Rows, splits and prompts differ
from lm-eval's, so their numbers are never reported under lm-eval's names.
"""

from collections.abc import Callable
from pathlib import Path

from loku_exp.data.text_files import Row, read_rows, require
from loku_exp.errors import DataError
from loku_exp.evaluation.tasks import ChoiceTask, Option, Question, as_text

CLOSED_ANSWERS = {"pubmed_qa_labeled": ("yes", "no", "maybe")}
"""By file of (context, continuation): the answers to choose from, where they are a closed set.

llm-foundry asks for the greedy word instead.
"""
PUBMED_ANSWERS = ("yes", "no", "maybe")


def foundry_tasks(data_dir: Path) -> list[ChoiceTask]:
    """Return a task ``<stem>_local`` for each .jsonl file in llm-foundry's schema; others are left.

    Schemas: ``query, choices, gold``: which choice follows the query; ``context_options,
    continuation, gold``: after which context the continuation follows; ``context, continuation``:
    whether the continuation is the greedy one. Prompt and answer are joined by a space. A query
    that starts with "Question:" and does not end in "Answer:" gets that line, as llm-foundry and
    lm-eval have it for ARC and PIQA.

    Raises:
        DataError: a row is malformed; names file and line.
    """
    tasks = []
    for file in sorted(data_dir.glob("*.jsonl")):
        rows = read_rows(file)
        for columns, convert in FOUNDRY.items():
            if set(columns) <= rows[0].values.keys():
                require(rows, columns)
                answers = CLOSED_ANSWERS.get(file.stem)
                if convert is _cloze and answers:
                    questions = [_closed(number, row, answers) for number, row in enumerate(rows)]
                else:
                    questions = [convert(number, row) for number, row in enumerate(rows)]
                tasks.append(ChoiceTask(f"{file.stem}_local", questions, as_text))
                break
    return tasks


def text_tasks(texts_dir: Path) -> list[ChoiceTask]:
    r"""Return ``lambada_local`` and ``pubmedqa_local``, as far as their CSV files are there.

    LAMBADA: the last word, after the last space, right if greedy. PubMedQA: yes, no or maybe after
    "Context: {abstract}\nQuestion: {question}\nAnswer:".

    Raises:
        DataError: a row is malformed; names file and row.
    """
    tasks = []
    for stem, name, convert in (
        ("lambada", "lambada_local", lambada_question),
        ("pubmed_qa", "pubmedqa_local", pubmed_question),
    ):
        file = texts_dir / f"{stem}.csv"
        if file.is_file():
            questions = [convert(number, row) for number, row in enumerate(read_rows(file))]
            tasks.append(ChoiceTask(name, questions, as_text))
    return tasks


def lambada_question(number: int, row: Row) -> Question:
    """Return the last word of column ``text`` after the rest.

    Raises:
        DataError: there is no text, or it has no space.
    """
    context, _, word = row.text("text").rpartition(" ")
    if not context.strip() or not word:
        raise DataError(f"{row.place}: the text must be two words or more")
    return Question(number, (Option(context, f" {word}"),))


def pubmed_question(number: int, row: Row) -> Question:
    """Return the question of columns ``abstract``, ``question``, ``final_decision``.

    Raises:
        DataError: a column is absent, or the decision is none of yes, no, maybe.
    """
    prompt = f"Context: {row.text('abstract')}\nQuestion: {row.text('question')}\nAnswer:"
    gold = _index(row, row.text("final_decision"), PUBMED_ANSWERS)
    return Question(number, tuple(Option(prompt, f" {answer}") for answer in PUBMED_ANSWERS), gold)


def _choice(number: int, row: Row) -> Question:
    query, choices = row.text("query"), row.texts("choices", 2)
    if query.startswith("Question:") and not query.rstrip().endswith("Answer:"):
        query = f"{query.rstrip()}\nAnswer:"
    options = tuple(_spaced(query, choice) for choice in choices)
    return Question(number, options, _gold(row, len(choices)))


def _schema(number: int, row: Row) -> Question:
    contexts, continuation = row.texts("context_options", 2), row.text("continuation")
    options = tuple(_spaced(context, continuation) for context in contexts)
    return Question(number, options, _gold(row, len(contexts)))


def _cloze(number: int, row: Row) -> Question:
    return Question(number, (_spaced(row.text("context"), row.text("continuation")),))


def _closed(number: int, row: Row, answers: tuple[str, ...]) -> Question:
    options = tuple(_spaced(row.text("context"), answer) for answer in answers)
    return Question(number, options, _index(row, row.text("continuation"), answers))


FOUNDRY: dict[tuple[str, ...], Callable[[int, Row], Question]] = {
    ("query", "choices", "gold"): _choice,
    ("context_options", "continuation", "gold"): _schema,
    ("context", "continuation"): _cloze,
}


def _spaced(context: str, continuation: str) -> Option:
    """Put one space between them, which belongs to the continuation."""
    return Option(context.rstrip(), f" {continuation.lstrip()}")


def _gold(row: Row, count: int) -> int:
    gold = row.values["gold"]
    if type(gold) is not int or not 0 <= gold < count:
        raise DataError(f"{row.place}: gold is {gold!r}; it must be a number from 0 to {count - 1}")
    return gold


def _index(row: Row, answer: str, answers: tuple[str, ...]) -> int:
    if answer not in answers:
        raise DataError(f"{row.place}: the answer is {answer!r}; it must be {', '.join(answers)}")
    return answers.index(answer)
