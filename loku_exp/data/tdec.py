"""TDEC: texts of The Pile that GPT-Neo has memorised (the Training Data Extraction Challenge).

A folder with three parts, all public:

- ``forget_sets/lm_extraction_{size}_{number}.csv`` (doc_id, corpus, text): the published forget sets of
  Jang et al. 2023 (arXiv 2210.01504), joeljang/knowledge-unlearning, ``data/main``;
- ``lm_extraction_benchmark/train_{preprefix,prefix,suffix}.npy``: the challenge's token ids,
  google-research/lm-extraction-benchmark; a doc_id is a row of them;
- ``validation_data/{pile,wikitext}.csv``: text for thresholds and perplexities, the first repository's.

What `load_tdec` can be told:

- ``path``: the folder described above.
- ``forget_set``: number of a published set.
- ``forget_size``: its size, 1, 4, 8, 32 or 128.
- ``rows``: rows of the benchmark arrays instead of a published set.
- ``source``: ``text`` (the predecessor's: the model's own tokenizer, cut to `length`) or ``ids`` (the
  exact rows the model was trained on; needs GPT-2's tokens).
- ``length``: tokens per sequence.
- ``siblings``: memorised texts that are not forgotten, at most: of the published set of 128 with the
  same number (of the next number where that is the forget set), or drawn from the arrays;
  without those that share a passage with the forget set.
- ``retain_siblings``: further ones that join the retain set, at most; they are not evaluated, and
  share no passage with any that are.
- ``retain``: ``wikitext`` (validation_data/wikitext.csv), ``rows`` (of the arrays), a csv, json, jsonl,
  parquet or txt file, or a hub dataset ``owner/name`` or ``owner/name:configuration`` with a
  column ``text``.
- ``retain_share``: share of its rows that is trained on; the others are evaluated.
- ``evaluated``: packed sequences of those others that are evaluated.
- ``unseen``: texts that thresholds are measured on.
- ``unseen_source``: ``pile`` (pile.csv), or ``forget_sets``: the published sets of 128 with other
  numbers. GPT-Neo has memorised those; to a model trained here they are unseen text of the very
  kind that is forgotten. Either way without texts that share a passage with a memorised one.
- ``split_seed``: of all draws of rows.
- ``overlap``: ``error``, or ``drop`` rows of the retain corpus that share text with evaluated rows.
- ``count_padding``: pad short texts with end-of-text and count it in MA and EL (the predecessor).
- ``repeats``: how often a model trained here sees each memorised text an epoch.
"""

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from loku_exp.data.tdec_draws import (
    Halves,
    Memorised,
    drawn_rows,
    drawn_unseen,
    memorised,
    split_corpus,
)
from loku_exp.data.tdec_files import (
    HOW_TO_GET,
    array_text,
    other_sets,
    published,
    read_arrays,
    siblings_of,
    validation_texts,
)
from loku_exp.data.text import Text, TextCorpus
from loku_exp.data.text_files import read_texts
from loku_exp.errors import DataError
from loku_exp.runtime.knobs import Count, NonNegativeCount, Seed, Share


def load_tdec(
    *,
    path: str,
    forget_set: int | None = 0,
    forget_size: Count = 32,
    rows: list[int] | None = None,
    source: Literal["text", "ids"] = "text",
    length: Count = 200,
    siblings: Count = 32,
    retain_siblings: NonNegativeCount = 0,
    retain: str = "wikitext",
    retain_share: Share = 0.5,
    evaluated: Count = 32,
    unseen: Count = 64,
    unseen_source: Literal["pile", "forget_sets"] = "pile",
    split_seed: Seed = 0,
    overlap: Literal["error", "drop"] = "error",
    count_padding: bool = False,
    repeats: Count = 1,
) -> TextCorpus:
    """Load a forget set, texts memorised like it, a retain corpus and unseen text.

    The module's text describes the knobs.

    Raises:
        DataError: something is missing, malformed, or overlaps.
    """
    knobs = dict(locals())
    if wrong := problems(**knobs):
        raise DataError("\n".join(wrong))
    folder = Path(os.path.expanduser(path))
    arrays = read_arrays(folder) if rows or source == "ids" or retain == "rows" else None
    sets = _memorised(knobs, folder, arrays)
    perplexity = _validation(folder)
    pool = perplexity["pile"]
    if unseen_source == "forget_sets":
        pool = other_sets(folder, forget_set, sets.known.rows, arrays)
    unseen_texts = drawn_unseen(pool, sets.known, unseen, split_seed)

    own_kind = retain == "wikitext"
    others_evaluated = [*sets.forget, *sets.known.siblings, *unseen_texts]
    for name, texts in perplexity.items():
        others_evaluated += [] if own_kind and name == "wikitext" else texts
    corpus = _retain_corpus(folder, retain, arrays, sets.known.rows)
    halves = split_corpus(corpus, retain_share, split_seed, others_evaluated, overlap, retain)
    return _corpus(knobs, sets, perplexity, unseen_texts, halves)


class _Sets(NamedTuple):
    """The forget set, and what is memorised beside it."""

    forget: list[Text]
    known: Memorised


def _memorised(knobs: dict[str, Any], folder: Path, arrays: np.ndarray | None) -> _Sets:
    rows, number, size = knobs["rows"], knobs["forget_set"], knobs["forget_size"]
    siblings, retained = knobs["siblings"], knobs["retain_siblings"]
    if rows is not None and arrays is not None:
        forget = [array_text(arrays, row) for row in rows]
        others = drawn_rows(arrays, rows, 2 * (siblings + retained), knobs["split_seed"])
    else:
        forget = published(folder, size, number, arrays)
        others = siblings_of(folder, size, int(number or 0), forget, arrays)
    return _Sets(forget, memorised(forget, others, siblings, retained))


def _corpus(
    knobs: dict[str, Any],
    sets: _Sets,
    perplexity: dict[str, list[Text]],
    unseen: list[Text],
    halves: Halves,
) -> TextCorpus:
    rows, retain, kept = knobs["rows"], knobs["retain"], len(sets.known.retained)
    own_kind = retain == "wikitext"
    if own_kind:
        perplexity = perplexity | {"wikitext": halves.held_out}
    published_set = f"{knobs['forget_size']}_{knobs['forget_set']}"
    same = ("source", "length", "unseen_source", "count_padding")
    return TextCorpus(
        length=knobs["length"],
        forget=sets.forget,
        siblings=sets.known.siblings,
        retain=halves.trained,
        held_out=halves.held_out,
        unseen=unseen,
        memorised_retain=sets.known.retained,
        perplexity=perplexity,
        in_domain=frozenset({"wikitext"} if own_kind else ()),
        repeats=knobs["repeats"],
        count_padding=knobs["count_padding"],
        evaluated=knobs["evaluated"],
        exact=knobs["source"] == "ids",
        protocol={
            "forget_split": f"{len(rows)} benchmark rows" if rows else published_set,
            "retain_corpus": f"{retain} + {kept} memorised texts" if kept else retain,
            "retain_rows": {
                "trained": len(halves.trained),
                "evaluated": len(halves.held_out),
                "dropped": halves.dropped,
            },
        }
        | {name: knobs[name] for name in same},
    )


def problems(**knobs: Any) -> list[str]:
    """Return what is wrong with these knobs, looking only at which files there are."""
    folder = Path(os.path.expanduser(knobs["path"]))
    if not os.path.isdir(folder):
        return [f"dataset.path={knobs['path']}: no such folder. {HOW_TO_GET}"]
    found = []
    rows, number, size = knobs.get("rows"), knobs.get("forget_set"), knobs.get("forget_size")
    if rows is None:
        names = [file.stem for file in (folder / "forget_sets").glob("lm_extraction_*_*.csv")]
        sets = sorted(
            tuple(map(int, m.groups()))
            for m in (re.fullmatch(r"lm_extraction_(\d+)_(\d+)", name) for name in names)
            if m
        )
        if (size, number) not in sets:
            have = ", ".join(f"{s}_{n}" for s, n in sets) or "none"
            found.append(
                f"dataset.forget_set={number} of size {size}: {folder / 'forget_sets'} has {have} "
                "(size_number). Or give rows of the arrays: dataset.rows=[...]"
            )
    elif not rows or len(set(rows)) < len(rows) or min(rows) < 0:
        found.append("dataset.rows must be different row numbers from 0, at least one")
    needed = {"pile", "wikitext"} if knobs.get("retain") == "wikitext" else {"pile"}
    found += [
        f"dataset.path={folder} lacks validation_data/{name}.csv, which {use}"
        for name, use in (
            ("pile", "thresholds are measured on"),
            ("wikitext", "is the retain corpus; or set dataset.retain=FILE"),
        )
        if name in needed and not (folder / f"validation_data/{name}.csv").is_file()
    ]
    if not 0 < knobs.get("retain_share", 0.5) < 1:
        found.append("dataset.retain_share must lie between 0 and 1")
    return found


def _validation(folder: Path) -> dict[str, list[Text]]:
    """Return the validation texts by name; WikiText only where the folder has it."""
    names = [n for n in ("pile", "wikitext") if (folder / f"validation_data/{n}.csv").is_file()]
    return {name: validation_texts(folder, name) for name in names}


def _retain_corpus(
    folder: Path, retain: str, arrays: np.ndarray | None, known: set[int]
) -> list[Text]:
    if retain == "rows" and arrays is not None:
        return [array_text(arrays, row) for row in range(len(arrays)) if row not in known]
    if retain == "wikitext":
        return validation_texts(folder, "wikitext")
    return [replace(text, group="retain") for text in read_texts(retain)]  # a name is no content
