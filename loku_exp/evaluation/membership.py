"""Membership inference: can the forget set be told from text of its kind that was never trained on.

A score is low for what a model was trained on; the area under the ROC curve of forget set against holdout
is the chance that a holdout row has the larger one. 1: the forget set is plainly known; below the
reference's: it is avoided, which gives it away, too. The two sets differ in themselves, so what to meet is
the reference's AUC, not .5. Scores: Yeom et al. 2018 (arXiv 1709.01604) for the loss, Carlini et al. 2021
(arXiv 2012.07805) for zlib, Shi et al. 2024 (arXiv 2310.16789) for min-k, Zhang et al. 2024 (arXiv
2404.02936) for min-k++; their forms, and k = 40 %, are OpenUnlearning's (locuslab/open-unlearning,
``src/evals/metrics/mia``).
"""

import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from operator import attrgetter
from statistics import fmean
from typing import Any

from scipy import stats

from loku_exp.data.records import Example
from loku_exp.evaluation.catalogue import Metric
from loku_exp.evaluation.lm.answers import TokenScores
from loku_exp.evaluation.standard_scores import STANDARD_SCORES, standard_scores
from loku_exp.evaluation.suite import Depth, Evaluation, Metrics, Row, Suite
from loku_exp.evaluation.tasks import OwnTask, Request
from loku_exp.runtime.knobs import MembershipScore

MIA, PRIVLEAK = "mia", "privleak"
LOWEST = 0.4
OF_PRIVLEAK: MembershipScore = "min_k"  # whose AUC MUSE takes
LABELS: dict[MembershipScore, str] = {
    "loss": "loss",
    "zlib": "zlib",
    "min_k": "min-k",
    "min_k_plus": "min-k++",
}


def min_k(values: Sequence[float]) -> float:
    """Return minus the mean of the lowest 40 % of an answer's log-probabilities, at least of one.

    Of their standard scores it is min-k++, see `loku_exp.evaluation.standard_scores`.
    """
    lowest = sorted(values)[: max(1, int(LOWEST * len(values)))]
    return -fmean(lowest)


def zlib_ratio(loss: float, text: str) -> float:
    """Return the loss per token over the bytes that zlib makes of the text."""
    return loss / len(zlib.compress(text.encode("utf-8", "surrogatepass")))


def auc(pairs: Iterable[tuple[bool, float]]) -> float | None:
    """Return the chance that a holdout row scores above a member, ties counted half; None without both.

    Args:
        pairs: whether a row is a member, and its score.
    """
    pairs = list(pairs)
    members, others = ([score for member, score in pairs if member is is_] for is_ in (True, False))
    if not members or not others:
        return None
    found = stats.mannwhitneyu(others, members, method="asymptotic")
    return float(found.statistic) / (len(members) * len(others))


def privleak(area: float, reference: float) -> float | None:
    """Return how far from the reference a member's rank is, in per cent of the reference's.

    ``100 ((1 - AUC) - (1 - AUC_R)) / (1 - AUC_R)``: negative where the forget set is still known, positive
    where it is avoided. Source: MUSE (Shi et al. 2024, arXiv 2407.06460), whose AUC is one minus ours.
    Without a reference OpenUnlearning takes .5 for its AUC; we give nothing.

    Args:
        area: AUC of min-k of a model.
        reference: the reference's; None is returned where it is 1.
    """
    return 100 * (reference - area) / (1 - reference) if reference < 1 else None


def membership_words() -> list[Metric]:
    """Return the words of all scores, for a catalogue."""
    areas = [
        Metric(name=f"{MIA}_{name}", label=f"membership, AUC of {label}", unit="all", forget=True)
        for name, label in LABELS.items()
    ]
    leak = Metric(
        name=f"{MIA}_{PRIVLEAK}",
        label="membership, privleak in %",
        better="none",
        form="signed",
        unit="all",
        forget=True,
    )
    return [*areas, leak]


def with_membership(
    suite: Suite,
    members: Sequence[Example],
    holdout: Sequence[Example],
    scores: Sequence[MembershipScore],
    text_of: Callable[[Example], str] = attrgetter("reference"),
) -> Suite:
    """Return a suite that asks for membership too, or says why it does not.

    Args:
        suite: of a dataset.
        members: its forget set.
        holdout: rows like it that nothing is trained on; empty where there are none.
        scores: which; empty for none.
        text_of: a record's labelled text, which zlib reads.
    """
    if not scores:
        return suite
    if not members or not holdout:
        said = "no membership inference, for there is no holdout"
        return replace(suite, described=[*suite.described, said])
    rows = [(row, True) for row in members] + [(row, False) for row in holdout]

    def tasks(reference: Evaluation | None, depth: Depth) -> list[Any]:
        own = suite.tasks(reference, depth)
        if depth != "full":
            return own
        known = reference.metrics.get(f"{MIA}_{OF_PRIVLEAK}") if reference else None
        return [*own, MembershipTask(rows, scores, known, text_of)]

    def aggregate(examples: Sequence[Row], reference: Sequence[Row] | None = None) -> Metrics:
        rest = [row for row in examples if row["set"] != MIA]
        return suite.aggregate(rest, reference) | membership_metrics(examples, reference)

    return replace(
        suite,
        tasks=tasks,
        aggregate=aggregate,
        catalogue=[*suite.catalogue, *membership_words()],
        requests={**suite.requests, STANDARD_SCORES: standard_scores},
    )


def membership_metrics(rows: Sequence[Row], reference: Sequence[Row] | None = None) -> Metrics:
    """Return the AUCs over some of a model's rows, and with those of the reference privleak.

    Args:
        rows: of ``examples.jsonl``; those of other sets are left aside.
        reference: those of the reference.
    """
    found = {}
    mine = [row for row in rows if row["set"] == MIA]
    for name in LABELS:
        area = auc((row["member"], row[name]) for row in mine if name in row)
        if area is not None:
            found[f"{MIA}_{name}"] = area
    theirs = membership_metrics(reference) if reference else {}
    key = f"{MIA}_{OF_PRIVLEAK}"
    if key in found and key in theirs:
        leak = privleak(found[key], theirs[key])
        found |= {f"{MIA}_{PRIVLEAK}": leak} if leak is not None else {}
    return found


class MembershipTask(OwnTask):
    """Rows of the forget set and of a holdout, each with its scores.

    Args:
        rows: records, and whether they are members.
        scores: which.
        reference: the reference's AUC of `OF_PRIVLEAK`, or None.
        text_of: a record's labelled text, which zlib reads.
    """

    def __init__(
        self,
        rows: Sequence[tuple[Example, bool]],
        scores: Sequence[MembershipScore],
        reference: float | None,
        text_of: Callable[[Example], str],
    ):
        self.rows = list(rows)
        self.scores = list(dict.fromkeys(scores))
        self.leak = reference is not None and reference < 1 and OF_PRIVLEAK in scores
        self.text_of = text_of
        aggregations: dict[str, Any] = dict.fromkeys(self.scores, auc)
        if self.leak:
            aggregations[PRIVLEAK] = lambda pairs: privleak(auc(pairs) or 0.0, reference or 0.0)
        documents = {i: (row.question, row.reference) for i, (row, _) in enumerate(self.rows)}
        super().__init__(MIA, documents, aggregations)

    def requests(self, row: int) -> list[Request]:
        """Ask for the log-probabilities of an answer."""
        record, _ = self.rows[row]
        kinds = ["token_scores", *([STANDARD_SCORES] if "min_k_plus" in self.scores else [])]
        return [(kind, (record.question, record.answer)) for kind in kinds]

    def process_results(self, doc: dict[str, Any], results: list[Any]) -> dict[str, Any]:
        """Score one row."""
        record, member = self.rows[doc["row"]]
        found: TokenScores = results[0]
        every: dict[MembershipScore, Callable[[], float]] = {
            "loss": lambda: found.loss,
            "zlib": lambda: zlib_ratio(found.loss, self.text_of(record)),
            "min_k": lambda: min_k(found.logprobs),
            "min_k_plus": lambda: min_k(results[1]),
        }
        scores: dict[str, float] = {name: every[name]() for name in self.scores}
        values: dict[str, Any] = {name: (member, score) for name, score in scores.items()}
        if self.leak:
            values[PRIVLEAK] = values[OF_PRIVLEAK]
        group = record.group if member else f"holdout {record.group}"
        return values | {"n": {"row": doc["row"], "group": group, "member": member} | scores}
