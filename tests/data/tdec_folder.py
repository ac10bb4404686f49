"""A folder laid out like TDEC's, with invented texts and token ids."""

import csv
import random

import numpy as np

from loku_exp.runtime.settings import Template

NO_TEMPLATE = Template(question_start="", question_end="", answer_tag="")
ARRAY_ROWS = 40


def words(count: int, seed: int) -> str:
    """Invented words; two seeds share no passage."""
    rng = random.Random(seed)
    return " ".join("".join(rng.choices("bdfgklmnprst", k=4)) for _ in range(count))


def write_csv(file, columns, rows):
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, lineterminator="\n").writerows([columns, *rows])


def write_set(folder, size, number, docs):
    """A forget set: text of doc d is ``words(60, d)`` with a line break, a comma and quotes."""
    rows = [(d, f"part{d % 2}", f'"{words(30, d)}",\n{words(30, 1000 + d)}') for d in docs]
    file = folder / f"forget_sets/lm_extraction_{size}_{number}.csv"
    write_csv(file, ["doc_id", "corpus", "text"], rows)


def write_arrays(folder, rows=ARRAY_ROWS, **replaced):
    """Token ids below 256; any part may be replaced."""
    rng = np.random.default_rng(0)
    parts = {
        name: rng.integers(0, 256, (rows, width), dtype=np.uint16)
        for name, width in (("preprefix", 100), ("prefix", 50), ("suffix", 50))
    }
    for name, array in (parts | replaced).items():
        file = folder / f"lm_extraction_benchmark/train_{name}.npy"
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, array)
    return np.concatenate([*parts.values()], axis=1)


def write_folder(folder):
    """Everything: sets 1_0, 4_0, 4_1, 128_0, 128_1 (of 8 rows), arrays of 40 rows, pile, wikitext."""
    write_set(folder, 1, 0, [3])
    write_set(folder, 4, 0, [3, 5, 7, 9])
    write_set(folder, 4, 1, [12, 14, 16, 18])
    write_set(folder, 128, 0, [5, 1, 3, 9, 7, 11, 13, 15])
    write_set(folder, 128, 1, [12, 14, 16, 18, 20, 22, 24, 15])
    pile = [(i, words(40, 2000 + i), f"domain {i % 3}") for i in range(12)]
    write_csv(folder / "validation_data/pile.csv", ["doc_id", "text", "corpus"], pile)
    wikitext = [(i, words(40, 3000 + i)) for i in range(20)]
    write_csv(folder / "validation_data/wikitext.csv", ["", "text"], wikitext)
    write_arrays(folder)
    return folder
