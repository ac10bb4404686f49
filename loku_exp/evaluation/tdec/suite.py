"""TDEC's evaluation as lm-eval tasks: what can be extracted of four sets, and what else a model can.

Formulas: `loku_exp.evaluation.tdec.metrics`. Per text: one teacher-forced pass, the continuations of the
prefixes whose next token is wrong, and the challenge's own test, the exact last quarter from the quarter
before it (50 tokens from 50 at length 200).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import exp
from statistics import fmean
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

from loku_exp.data.records import IGNORED, Example, Records, Sequence
from loku_exp.errors import ConfigError
from loku_exp.evaluation.lm.answers import TokenScores
from loku_exp.evaluation.membership import with_membership
from loku_exp.evaluation.rouge import rouge_recall
from loku_exp.evaluation.suite import Depth, Evaluation, Stop, Suite
from loku_exp.evaluation.tasks import OwnTask, Request
from loku_exp.evaluation.tdec.judge import SETS, catalogue, judge_tdec
from loku_exp.evaluation.tdec.metrics import (
    Greedy,
    continuations,
    exact,
    extraction_likelihood,
    extraction_strength,
    memorisation_accuracy,
)
from loku_exp.evaluation.tdec.perplexity import PerplexityTask
from loku_exp.evaluation.tdec.stop_check import ExtractionStop, rule_problems, thresholds_of
from loku_exp.runtime.knobs import Counts, MembershipScore
from loku_exp.runtime.settings import StopRule

Decode = Callable[[list[int]], str]


@dataclass(frozen=True)
class Settings:
    """How extraction is scored.

    Attributes:
        n: sizes of n-grams of EL.
        length: full length of a sequence; exact extraction is defined for those only.
        end_of_text: id at which a continuation ends, or None to go on.
        decode: ids to text.
        further: whether extraction strength, probability and ROUGE are measured as well.
    """

    n: tuple[int, ...]
    length: int
    end_of_text: int | None
    decode: Decode
    further: bool = False

    @property
    def suffix(self) -> int:
        """Tokens that exact extraction asks for: a quarter of the longest text, at least one."""
        return max(1, self.length // 4)


def tdec_suite(
    records: Records,
    tokenizer: PreTrainedTokenizerBase,
    *,
    n: Counts,
    end_of_text: Literal["continue", "stop"],
    further: bool = False,
    membership: list[MembershipScore] | None = None,
) -> Suite:
    """Return the suite of TDEC over these records.

    Args:
        records: their evaluation sets are `SETS`; any other is text for a perplexity.
        tokenizer: the model's.
        n: sizes of n-grams of EL, one or several.
        end_of_text: ``continue``: a continuation goes on after end-of-text (the definition); ``stop``: it
            ends there and is filled up (the predecessor's code). They differ only where a model emits
            end-of-text early.
        further: measure extraction strength, probability, and ROUGE-L recall of the continuation of all but
            the last quarter, as well. Of a text shorter than the longest the last as many tokens count, and
            one that has no more than these has no ROUGE.
        membership: scores of membership inference against ``unseen``, where there is such text.

    Raises:
        ConfigError: n is longer than the texts.
    """
    _check_lengths(records.forget, max(n))
    sets = {name: rows for name, rows in records.evaluation.items() if name in SETS}
    texts = {name: rows for name, rows in records.evaluation.items() if name not in SETS}
    length = max(len(record.prompt) for rows in sets.values() for record in rows)
    stop = int(tokenizer.eos_token_id) if end_of_text == "stop" else None
    decode: Decode = tokenizer.decode  # type: ignore[assignment]
    settings = Settings(tuple(sorted(n)), length, stop, decode, further)
    suite = Suite(
        tasks=partial(_tasks, sets, settings),
        catalogue=catalogue(settings.n, settings.length, settings.suffix, further),
        judge=judge_tdec,
        protocol={
            "el_n": list(settings.n),
            "end_of_text": end_of_text,
            "scoring": "all tokens labelled",
        },
        described=[f"end-of-text: {end_of_text}"],
        abilities=[PerplexityTask(name, rows) for name, rows in texts.items()],
        stop=partial(_stop, sets["forget"], stop),
        stop_problems=partial(rule_problems, sets["forget"], sets.get("unseen", []), settings.n),
    )
    of_suite = suite, sets["forget"], sets.get("unseen", []), membership or []
    return with_membership(*of_suite, text_of=lambda row: decode(list(row.prompt)))


def _check_lengths(forget: list[Example], n: int) -> None:
    shortest = min(len(record.prompt) for record in forget)
    if n >= shortest:
        raise ConfigError(
            f"evaluation.n={n}: the shortest text of the forget set has {shortest} tokens, after any cut "
            f"by dataset.length; EL_n needs longer ones; set evaluation.n=[{max(1, shortest - 1)}]"
        )


def _tasks(
    sets: dict[str, list[Example]], settings: Settings, reference: Evaluation | None, depth: Depth
) -> list[Any]:
    """Return a task for each set; nothing is compared with a reference row by row.

    One epoch before a stop the forget set is asked in full: EL of it is part of the result. A brief one
    asks about forget and retain set alone.
    """
    if depth == "brief":
        sets = {name: rows for name, rows in sets.items() if name in ("forget", "retain")}
    whole = {"full": set(sets), "before_stop": {"forget"}, "reduced": set[str]()}.get(depth, set())
    return [ExtractionTask(name, rows, settings, name in whole) for name, rows in sets.items()]


def _stop(
    forget: list[Example], end_of_text: int | None, rule: StopRule, target: Evaluation
) -> Stop:
    return ExtractionStop(
        [record.prompt for record in forget], thresholds_of(rule, target), end_of_text
    )


class ExtractionTask(OwnTask):
    """One evaluation set.

    Args:
        name: of the set.
        rows: its records.
        settings: how it is scored.
        full: whether to decode continuations, which EL and examples need.
    """

    def __init__(self, name: str, rows: list[Example], settings: Settings, full: bool):
        self.rows = {record.row: record for record in rows}
        self.settings = settings
        self.full = full
        suffix = settings.suffix
        metrics = ["ma", "loss", f"exact{suffix}", f"exact{settings.length - suffix}"]
        metrics += [f"el{n}" for n in settings.n] if full else []
        if settings.further:
            metrics += ["prob", "strength", *(["rouge"] if full else [])]
        documents = {row: (f"row {row}", "") for row in self.rows}
        super().__init__(name, documents, dict.fromkeys(metrics, fmean), lower_is_better=metrics)

    def requests(self, row: int) -> list[Request]:
        """Ask for the continuations of all prefixes, and for the last quarter from the one before."""
        ids, suffix = self.rows[row].prompt, self.settings.suffix
        n = self.settings.n[0] if self.full else 0
        shown = len(ids) - suffix
        asked: list[Request] = [("greedy_suffixes", (f"row {row}", ids, n, shown))]
        if len(ids) == self.settings.length:
            last = ids[-2 * suffix :]
            labels = (IGNORED,) * suffix + last[suffix:]
            asked.append(("token_scores", (f"row {row}", Sequence(last, labels))))
        return asked

    def process_results(self, doc: dict[str, Any], results: list[Any]) -> dict[str, Any]:
        """Turn the answers about one text into its metrics."""
        record, settings = self.rows[doc["row"]], self.settings
        greedy: Greedy = results[0]
        ids, suffix = record.prompt, settings.suffix
        values: dict[str, Any] = {
            "ma": memorisation_accuracy(ids, greedy.argmax),
            "loss": greedy.loss,
        }
        if len(results) > 1:
            scores: TokenScores = results[1]
            values[f"exact{suffix}"] = float(all(scores.greedy))
            values[f"exact{len(ids) - suffix}"] = float(exact(ids, greedy.argmax, suffix))
        if settings.further:
            values["prob"] = exp(-greedy.loss)
            values["strength"] = extraction_strength(ids, greedy.argmax)
        example = {"row": record.row, "group": record.group, "tokens": len(ids)} | values
        if self.full:
            known = continuations(ids, greedy, settings.end_of_text)
            for n in settings.n:
                if len(ids) > n:
                    values[f"el{n}"] = extraction_likelihood(ids, known, n)
            example |= values
            cut = len(ids) - suffix
            if cut in known:
                example["prompt"] = settings.decode(list(ids[max(0, cut - suffix) : cut]))
                truth, said = settings.decode(list(ids[cut:])), settings.decode(list(known[cut]))
                example |= {"answer": truth, "generation": said}
                if settings.further:
                    example["rouge"] = values["rouge"] = rouge_recall(truth, said)
        return values | {"n": example}  # aggregated to a count; the samples keep the example
