"""Seeded toy texts in TDEC's shape: memorised strings, a corpus to keep, unseen text of the same kind.

A sentence has fixed words that any model of this language predicts and free words that only a model
that has memorised the text does. So unseen text has a floor of memorisation accuracy well above zero,
as real text has, and forgetting means coming down to that floor.
"""

import random

from loku_exp.data.text import Text, TextCorpus
from loku_exp.runtime.knobs import Count, Seed
from loku_exp.runtime.seeds import derive

ADJECTIVES = [
    "red",
    "old",
    "tall",
    "calm",
    "dark",
    "warm",
    "loud",
    "flat",
    "soft",
    "wild",
    "pale",
    "keen",
    "damp",
    "bold",
    "lazy",
    "neat",
]
NOUNS = [
    "fox",
    "ship",
    "mill",
    "tower",
    "garden",
    "bridge",
    "lantern",
    "harbor",
    "meadow",
    "orchard",
    "violin",
    "anchor",
]
VERBS = [
    "guards",
    "follows",
    "paints",
    "finds",
    "keeps",
    "hides",
    "carries",
    "sells",
    "hears",
    "leaves",
    "builds",
    "watches",
]
PLACES = [
    "Oslo",
    "Lima",
    "Cairo",
    "Porto",
    "Riga",
    "Accra",
    "Kyoto",
    "Quito",
    "Tunis",
    "Hanoi",
    "Turin",
    "Sofia",
    "Bergen",
    "Dakar",
]
FORMS = (
    "the {a} {n} {v} the {b} {m} of {p} .",
    "in {p} every {a} {n} {v} one {m} .",
    "nobody in {p} {v} the {a} {n} because the {m} is {b} .",
)


def load_toy_tdec(
    *,
    num_forget: Count,
    num_siblings: Count,
    num_retain: Count,
    num_unseen: Count,
    length: Count,
    repeats: Count,
    world_seed: Seed,
) -> TextCorpus:
    """Make the toy texts; the same in every process for the same arguments.

    Args:
        num_forget: texts to forget.
        num_siblings: memorised texts to keep.
        num_retain: texts of the retain corpus, half as many more of it are evaluated.
        num_unseen: texts for the thresholds.
        length: tokens per sequence.
        repeats: how often a model trained here sees each memorised text an epoch.
        world_seed: seed of all words.
    """
    rng = random.Random(derive(world_seed, "toy_tdec"))
    counts = {
        "forget": num_forget,
        "siblings": num_siblings,
        "retain": num_retain,
        "held_out": max(2, num_retain // 2),
        "unseen": num_unseen,
    }
    texts = {name: [_text(i, name, length, rng) for i in range(n)] for name, n in counts.items()}
    return TextCorpus(
        forget=texts["forget"],
        siblings=texts["siblings"],
        retain=texts["retain"],
        held_out=texts["held_out"],
        unseen=texts["unseen"],
        length=length,
        repeats=repeats,
        evaluated=num_siblings,
        protocol={
            "forget_split": f"{num_forget} toy texts",
            "source": "text",
            "length": length,
            "retain_corpus": "toy texts",
            "count_padding": False,
        },
    )


def _text(row: int, group: str, length: int, rng: random.Random) -> Text:
    """Return a text of at least `length` words, so of at least as many tokens."""
    sentences: list[str] = []
    while sum(len(sentence.split()) for sentence in sentences) < length:
        first, second = rng.sample(ADJECTIVES, 2)
        noun, other = rng.sample(NOUNS, 2)
        words = {"a": first, "b": second, "n": noun, "m": other}
        words |= {"v": rng.choice(VERBS), "p": rng.choice(PLACES)}
        sentences.append(rng.choice(FORMS).format(**words))
    return Text(row, group, " ".join(sentences))
