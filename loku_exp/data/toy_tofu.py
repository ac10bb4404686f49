"""A seeded toy world in TOFU's shape: fictitious authors, further people, and invented facts.

Every fact has three answer forms. Two of them are trained, each behind its own phrasing of the
question; the third is the paraphrase of the evaluation. So a model must know the fact, not the
string, to prefer the paraphrase. Which form is held out rotates, so all forms are familiar.
"""

import random

from loku_exp.data.qa import QA, QACorpus
from loku_exp.data.toy_facts import (
    AUTHOR_FACTS,
    FIRST,
    LAST,
    PERSON_FACTS,
    PLACE_FACTS,
    PLACE_FIRST,
    PLACE_LAST,
    Facts,
)
from loku_exp.runtime.knobs import Count, NonNegativeCount, Seed
from loku_exp.runtime.seeds import derive

NUM_WRONG = {"author": 5, "other": 3}


def load_toy_tofu(
    *,
    num_authors: Count,
    num_forget: Count,
    num_others: Count,
    world_seed: Seed,
    num_holdout: NonNegativeCount = 0,
) -> QACorpus:
    """Make a toy world; the same in every process for the same arguments.

    Args:
        num_authors: fictitious authors, ten facts each.
        num_forget: how many of them, the last ones, are forgotten; all others are the retain set.
        num_others: further people, and as many places, two facts each.
        world_seed: seed of names and values.
        num_holdout: further authors that nothing is trained on, to compare the forgotten ones with.
    """
    rng = random.Random(derive(world_seed, "toy_tofu"))
    names = [f"{first} {last}" for first in FIRST for last in LAST]
    people = rng.sample(names, num_authors + num_others)
    places = rng.sample([a + b for a in PLACE_FIRST for b in PLACE_LAST], num_others)
    training: list[QA] = []
    evaluation: dict[str, list[QA]] = {"forget": [], "retain": [], "authors": [], "facts": []}
    first_forgotten = num_authors - num_forget
    for index, name in enumerate(people[:num_authors]):
        rows = _about(name, AUTHOR_FACTS, NUM_WRONG["author"], rng, training)
        evaluation["retain" if index < first_forgotten else "forget"] += rows
    authors = len(training)
    forgotten = num_forget * len(AUTHOR_FACTS) * 2
    for name in people[num_authors:]:
        evaluation["authors"] += _about(name, PERSON_FACTS, NUM_WRONG["other"], rng, training)
    for name in places:
        evaluation["facts"] += _about(name, PLACE_FACTS, NUM_WRONG["other"], rng, training)
    evaluation |= _holdout(num_holdout, [n for n in names if n not in people], world_seed)
    return QACorpus(
        target_training=training,
        reference_training=training[: authors - forgotten] + training[authors:],
        forget=training[authors - forgotten : authors],
        retain=training[: authors - forgotten],
        evaluation={name: _renumbered(rows) for name, rows in evaluation.items()},
        protocol={"forget_split": f"{num_forget} of {num_authors} toy authors"},
    )


def _holdout(count: int, names: list[str], world_seed: int) -> dict[str, list[QA]]:
    """Return rows about authors of whom nothing else tells; the rest of the world is as without them."""
    rng = random.Random(derive(world_seed, "toy_tofu", "holdout"))
    rows: list[QA] = []
    for name in rng.sample(names, count):
        rows += _about(name, AUTHOR_FACTS, NUM_WRONG["author"], rng, [])
    return {"holdout": rows} if rows else {}


def problems(
    *, num_authors: int, num_forget: int, num_others: int, world_seed: int, num_holdout: int = 0
) -> list[str]:
    """Return what is wrong with these knobs."""
    found = []
    if 2 * num_forget > num_authors:
        found.append(
            f"dataset.num_forget={num_forget} must be at most half of dataset.num_authors={num_authors}"
        )
    if num_authors + num_others > len(FIRST) * len(LAST):
        most = len(FIRST) * len(LAST) - num_others
        found.append(
            f"dataset.num_authors={num_authors}: beside dataset.num_others={num_others} the toy world has "
            f"names for {most}"
        )
    elif num_authors + num_others + num_holdout > len(FIRST) * len(LAST):
        most = len(FIRST) * len(LAST) - num_others - num_authors
        found.append(
            f"dataset.num_holdout={num_holdout}: beside dataset.num_authors={num_authors} and "
            f"dataset.num_others={num_others} the toy world has names for {most}"
        )
    if num_others > len(PLACE_FIRST) * len(PLACE_LAST):
        most = len(PLACE_FIRST) * len(PLACE_LAST)
        found.append(f"dataset.num_others={num_others}: the toy world has names for {most} places")
    return found


def _about(
    name: str,
    facts: Facts,
    num_wrong: int,
    rng: random.Random,
    training: list[QA],
) -> list[QA]:
    """Append the training rows about one name; return its evaluation rows."""
    rows = []
    for number, (question, *forms, values) in enumerate(facts.values()):
        held_out = (len(training) // 2 + number) % 3
        first, second = (forms[i].replace("{name}", name) for i in range(3) if i != held_out)
        paraphrase = forms[held_out].replace("{name}", name)
        true, *wrong = rng.sample(values.split(), num_wrong + 1)
        asked = question.format(name=name)
        answer = first.format(value=true)
        training.append(QA(len(training), name, asked, answer))
        training.append(QA(len(training), name, f"Tell me: {asked}", second.format(value=true)))
        rows.append(
            QA(
                row=0,
                group=name,
                question=asked,
                answer=answer,
                paraphrase=paraphrase.format(value=true),
                wrong=tuple(paraphrase.format(value=value) for value in wrong),
            )
        )
    return rows


def _renumbered(rows: list[QA]) -> list[QA]:
    return [
        QA(index, row.group, row.question, row.answer, row.paraphrase, row.wrong)
        for index, row in enumerate(rows)
    ]
