"""The files of a TDEC folder: published forget sets, benchmark arrays, validation texts."""

import io
import re
from pathlib import Path
from tokenize import TokenError

import numpy as np

from loku_exp.data.decoding import read_content
from loku_exp.data.text import GPT2_TOKENS, Text
from loku_exp.data.text_files import read_rows, read_texts
from loku_exp.errors import DataError

PARTS = {"preprefix": 100, "prefix": 50, "suffix": 50}
NOT_AN_ARRAY = (ValueError, TypeError, SyntaxError, TokenError, MemoryError, RecursionError)
"""What numpy raises for a file that is none, or whose head promises what does not follow."""
HOW_TO_GET = (
    "TDEC is not on the hub. Put the forget sets (github.com/joeljang/knowledge-unlearning, "
    "data/main/*.csv) into DIR/forget_sets, its validation_data into DIR/validation_data, and for "
    "dataset.source=ids or dataset.rows the arrays of github.com/google-research/lm-extraction-benchmark "
    "into DIR/lm_extraction_benchmark; then dataset.path=DIR"
)


def published(folder: Path, size: int, number: int | None, arrays: np.ndarray | None) -> list[Text]:
    """Return a published set; with the arrays, its texts have their ids too.

    Raises:
        DataError: the file is missing or malformed, or a doc_id is no row or there twice.
    """
    texts: dict[int, Text] = {}
    for row in read_rows(folder / f"forget_sets/lm_extraction_{size}_{number}.csv"):
        written = row.text("doc_id")
        if not re.fullmatch("[0-9]{1,9}", written):
            raise DataError(f"{row.place}: doc_id '{written}' is not a row number")
        doc = int(written)
        if doc in texts:
            raise DataError(f"{row.place}: doc_id {doc} is there twice")
        ids = None if arrays is None else array_text(arrays, doc, row.place).ids
        texts[doc] = Text(doc, row.text("corpus"), row.text("text"), ids)
    return list(texts.values())


def siblings_of(
    folder: Path, size: int, number: int, forget: list[Text], arrays: np.ndarray | None
) -> list[Text]:
    """Return the published texts of the set of 128 that are not in the forget set."""
    forgotten = {text.row for text in forget}
    numbers = [number] if size < 128 else [number + 1, 0]
    for candidate in numbers:
        if (folder / f"forget_sets/lm_extraction_128_{candidate}.csv").is_file():
            texts = published(folder, 128, candidate, arrays)
            return [text for text in texts if text.row not in forgotten]
    return []


def other_sets(
    folder: Path, number: int | None, known: set[int], arrays: np.ndarray | None
) -> list[Text]:
    """Return the texts of the published sets of 128 with other numbers."""
    found: dict[int, Text] = {}
    for file in sorted((folder / "forget_sets").glob("lm_extraction_128_*.csv")):
        other = re.fullmatch(r"lm_extraction_128_(\d+)", file.stem)
        if other and int(other[1]) != number:
            texts = published(folder, 128, int(other[1]), arrays)
            found |= {text.row: text for text in texts}
    texts = [text for row, text in sorted(found.items()) if row not in known]
    if not texts:
        raise DataError(
            f"dataset.unseen_source=forget_sets: {folder / 'forget_sets'} has no set of 128 with another "
            "number; use dataset.unseen_source=pile"
        )
    return texts


def read_arrays(folder: Path) -> np.ndarray:
    """Return the benchmark's rows, (rows, 200) ids of GPT-2's tokens.

    Raises:
        DataError: an array is missing or holds something else, or the shapes do not fit together.
    """
    parts = []
    for name, width in PARTS.items():
        file = folder / f"lm_extraction_benchmark/train_{name}.npy"
        if not file.is_file():
            raise DataError(
                f"no file {file}, which dataset.source=ids and dataset.rows need. {HOW_TO_GET}"
            )
        parts.append(_read_array(file, width))
    if len({len(part) for part in parts}) > 1:
        sizes = ", ".join(f"train_{n}.npy {len(p)}" for n, p in zip(PARTS, parts, strict=True))
        raise DataError(f"the arrays in {folder} have different numbers of rows: {sizes}")
    return np.concatenate(parts, axis=1)


def _read_array(file: Path, width: int) -> np.ndarray:
    content = io.BytesIO(read_content(file))
    try:
        array = np.lib.format.read_array(content, allow_pickle=False)
    except NOT_AN_ARRAY as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"{file} is no array of numbers as numpy saves one ({reason}); get it anew"
        ) from error
    if array.ndim != 2 or array.shape[1] != width or array.dtype.kind not in "ui":
        raise DataError(
            f"{file} is {array.dtype} of shape {array.shape}, not integers (rows, {width})"
        )
    if array.size == 0 or array.min() < 0 or array.max() >= GPT2_TOKENS:
        held = f"ids from {array.min()} to {array.max()}" if array.size else "no rows"
        raise DataError(f"{file} has {held}; GPT-2's ids are 0 to {GPT2_TOKENS - 1}")
    return array.astype(np.int64)  # joined, parts of different types could become floats


def array_text(arrays: np.ndarray, row: int, named_by: str = "dataset.rows") -> Text:
    """Return a row of the arrays as a text of ids; `named_by` is what asked for it.

    Raises:
        DataError: there is no such row.
    """
    if row >= len(arrays):
        raise DataError(f"{named_by}: row {row} does not exist, the arrays have {len(arrays)}")
    return Text(row, "benchmark", None, tuple(arrays[row].tolist()))


def validation_texts(folder: Path, name: str) -> list[Text]:
    """Return the texts of ``validation_data/{name}.csv``."""
    return read_texts(folder / f"validation_data/{name}.csv")
