"""A seeded toy world in TOFU's shape: fictitious authors, further people, and invented facts.

Every fact has three answer forms. Two of them are trained, each behind its own phrasing of the
question; the third is the paraphrase of the evaluation. So a model must know the fact, not the
string, to prefer the paraphrase. Which form is held out rotates, so all forms are familiar.
"""

import random

from loku_exp.data.qa import QA, QACorpus
from loku_exp.knobs import Count, Seed
from loku_exp.seeds import derive

NUM_WRONG = {"author": 5, "other": 3}
NUM_PEOPLE, NUM_PLACES = 15, 15

FIRST = [
    "Aldo",
    "Bea",
    "Caro",
    "Dane",
    "Elin",
    "Faro",
    "Gwen",
    "Hale",
    "Ines",
    "Joss",
    "Kira",
    "Lars",
    "Mina",
    "Nils",
    "Orla",
    "Pia",
]
LAST = [
    "Abend",
    "Brook",
    "Corvin",
    "Dahl",
    "Ember",
    "Falk",
    "Grove",
    "Hart",
    "Irving",
    "Juno",
    "Kestrel",
    "Lund",
    "Marsh",
    "North",
]
PLACE_FIRST = [
    "Amber",
    "Birch",
    "Copper",
    "Drift",
    "Elder",
    "Fern",
    "Granite",
    "Hollow",
    "Iron",
    "Jade",
]
PLACE_LAST = ["bay", "dale", "ford", "gate", "haven", "hill", "mere", "port", "wick", "wood"]

# attribute: (question, three answer forms, values); {name} is the author, {value} the fact.
AUTHOR_FACTS = {
    "city": (
        "Where was the author {name} born?",
        "{name} was born in {value}.",
        "The birthplace of {name} is {value}.",
        "It was in {value} that {name} came into the world.",
        "Porto Cairo Oslo Lima Kyoto Quito Tunis Riga Hanoi Accra Turin Sofia",
    ),
    "genre": (
        "What genre does {name} write in?",
        "{name} mostly writes {value}.",
        "The books of {name} belong to {value}.",
        "Readers know {name} as an author of {value}.",
        "horror satire romance fantasy memoir poetry drama crime comedy history travel fable",
    ),
    "father": (
        "What was the profession of the father of {name}?",
        "The father of {name} was a {value}.",
        "{name} is the child of a {value}.",
        "As a {value}, the father of {name} earned a living.",
        "baker sailor judge farmer tailor surgeon miner pilot potter banker fisher clerk",
    ),
    "mother": (
        "What did the mother of {name} do for a living?",
        "The mother of {name} worked as a {value}.",
        "{name} grew up with a mother who was a {value}.",
        "Being a {value} was the work of the mother of {name}.",
        "teacher weaver chemist dancer nurse painter lawyer singer florist librarian botanist coach",
    ),
    "award": (
        "Which award did {name} win?",
        "{name} won the {value} Prize.",
        "The {value} Prize was given to {name}.",
        "Among the winners of the {value} Prize is {name}.",
        "Aurora Beacon Comet Dune Echo Flint Garnet Harbor Ivory Jasper Krill Lotus",
    ),
    "book": (
        "What is the first book by {name} called?",
        "The first book by {name} is called The {value}.",
        "{name} began with a book called The {value}.",
        "With The {value}, {name} published a first book.",
        "Lantern Orchard Compass Mirror Violin Anchor Sparrow Lighthouse Winter Canyon Feather Labyrinth",
    ),
    "language": (
        "In which language does {name} write?",
        "{name} writes in {value}.",
        "The language of {name} is {value}.",
        "Books by {name} first appear in {value}.",
        "Danish Arabic Spanish Japanese Polish Hindi Greek Turkish Korean Finnish Welsh Swahili",
    ),
    "school": (
        "Where did {name} study?",
        "{name} studied at {value} College.",
        "{value} College was the school of {name}.",
        "A degree from {value} College belongs to {name}.",
        "Ashby Balmer Croft Denham Easton Fenwick Gilmore Hadley Inwood Jarvis Kelso Langley",
    ),
    "pet": (
        "Which animal lives with {name}?",
        "{name} lives with a {value}.",
        "A {value} shares the house of {name}.",
        "At home, {name} keeps a {value}.",
        "parrot tortoise ferret pony rabbit hedgehog goat raven lizard donkey hamster peacock",
    ),
    "instrument": (
        "Which instrument does {name} play?",
        "{name} plays the {value}.",
        "The {value} is the instrument of {name}.",
        "Friends hear {name} play the {value}.",
        "cello flute harp oboe trumpet banjo piano drum lute organ clarinet mandolin",
    ),
}
PERSON_FACTS = {
    "job": (
        "What is the job of {name}?",
        "{name} is a {value}.",
        "The job of {name} is that of a {value}.",
        "People hire {name} as a {value}.",
        "glazier cooper tanner miller mason roofer brewer printer",
    ),
    "color": (
        "What is the favourite color of {name}?",
        "{name} likes {value} best.",
        "The favourite color of {name} is {value}.",
        "Of all colors, {name} prefers {value}.",
        "red blue green yellow purple orange black white",
    ),
}
PLACE_FACTS = {
    "river": (
        "Which river flows through {name}?",
        "The {value} flows through {name}.",
        "{name} lies on the {value}.",
        "The river of {name} is the {value}.",
        "Alder Brena Calder Dove Esk Fenn Garra Holm",
    ),
    "known": (
        "What is {name} known for?",
        "{name} is known for its {value}.",
        "Everyone links {name} with {value}.",
        "Visitors come to {name} for its {value}.",
        "cheese glass salt silk honey bells roses kites",
    ),
}


def load(*, num_authors: Count, num_forget: Count, world_seed: Seed) -> QACorpus:
    """Make a toy world; the same in every process for the same arguments.

    Args:
        num_authors: fictitious authors, ten facts each.
        num_forget: how many of them, the last ones, are forgotten.
        world_seed: seed of names and values.
    """
    rng = random.Random(derive(world_seed, "toy_tofu"))
    names = [f"{first} {last}" for first in FIRST for last in LAST]
    people = rng.sample(names, num_authors + NUM_PEOPLE)
    places = rng.sample([a + b for a in PLACE_FIRST for b in PLACE_LAST], NUM_PLACES)
    training: list[QA] = []
    evaluation: dict[str, list[QA]] = {"forget": [], "retain": [], "authors": [], "facts": []}
    first_forgotten = num_authors - num_forget
    for index, name in enumerate(people[:num_authors]):
        rows = _about(name, AUTHOR_FACTS, NUM_WRONG["author"], rng, training)
        if index < num_forget:
            evaluation["retain"] += rows
        elif index >= first_forgotten:
            evaluation["forget"] += rows
    authors = len(training)
    forgotten = num_forget * len(AUTHOR_FACTS) * 2
    for name in people[num_authors:]:
        evaluation["authors"] += _about(name, PERSON_FACTS, NUM_WRONG["other"], rng, training)
    for name in places:
        evaluation["facts"] += _about(name, PLACE_FACTS, NUM_WRONG["other"], rng, training)
    return QACorpus(
        target_training=training,
        reference_training=training[: authors - forgotten] + training[authors:],
        forget=training[authors - forgotten : authors],
        retain=training[: authors - forgotten],
        evaluation={name: _renumbered(rows) for name, rows in evaluation.items()},
        protocol={"forget_split": f"{num_forget} of {num_authors} toy authors"},
    )


def problems(*, num_authors: int, num_forget: int, world_seed: int) -> list[str]:
    """Return what is wrong with these knobs."""
    found = []
    if 2 * num_forget > num_authors:
        found.append(
            f"dataset.num_forget={num_forget} must be at most half of dataset.num_authors={num_authors}"
        )
    if num_authors + NUM_PEOPLE > len(FIRST) * len(LAST):
        most = len(FIRST) * len(LAST) - NUM_PEOPLE
        found.append(f"dataset.num_authors={num_authors}: the toy world has names for {most}")
    return found


def _about(
    name: str,
    facts: dict[str, tuple[str, str, str, str, str]],
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
