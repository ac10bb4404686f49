"""Texts to extract, TDEC's suite over them, and a model that knows some of them by heart."""

import copy
from functools import cache

from loku_exp.data.records import Example, Records, Sequence
from loku_exp.evaluation.tdec.suite import tdec_suite
from tests.evaluation.tdec.memorising import END, POSITIONS, memorise, random_text, untrained
from tests.helpers import TOKENIZER, inference_of, lm_of

LENGTH, SUFFIX = 24, 6
SIZES = [1, 3, 10]


def record(row, role, ids):
    return Example(row, f"group {row % 2}", role, ids, Sequence(ids, ids))


def packed(seed):
    """Two texts with end-of-text after each, as retain corpora are packed."""
    ids = random_text(LENGTH, seed)
    return (*ids[:9], END, *ids[10:20], END, *ids[21:])


def texts():
    def drawn(first, lengths):
        return [random_text(length, first + i) for i, length in enumerate(lengths)]

    return {
        "forget": drawn(100, (LENGTH, LENGTH, LENGTH, LENGTH, 20)),
        "sibling": drawn(200, (17, 20)),
        "retain": [packed(300), packed(301)],
        "unseen": drawn(400, (LENGTH, LENGTH, 8)),
        "pile": drawn(500, (50, 3, 24, 60)),
    }


def records(**changed):
    sets = {
        name: [record(7 * i + 3, name, ids) for i, ids in enumerate(rows)]
        for name, rows in (texts() | changed).items()
    }
    return Records([], [], sets["forget"], sets["retain"], sets)


def suite_of(rows, n, end_of_text="continue"):
    return tdec_suite(rows, TOKENIZER, n=n, end_of_text=end_of_text)


def tdec(n=None, end_of_text="continue", **changed):
    return suite_of(records(**changed), n or SIZES, end_of_text)


@cache
def knowing(state):
    model, known = untrained("llama"), texts()
    if state == "memorised":  # one to forget also without what comes before its last half
        some = [*known["forget"][:2], known["forget"][4], *known["retain"], known["sibling"][0]]
        memorise(model, [*some, known["forget"][0][-2 * SUFFIX :]], 1.0)
    return model.double()


def language_model(state, batch_tokens=100, answers=None):
    model = copy.deepcopy(knowing(state))
    return lm_of(inference_of(model, batch_tokens=batch_tokens, max_length=POSITIONS), answers)
