"""The files of a TDEC folder: published forget sets, benchmark arrays, validation texts."""

from pathlib import Path

import numpy as np

from loku_exp.data.text import Text
from loku_exp.data.text_files import read_csv, read_texts
from loku_exp.errors import DataError

PARTS = {"preprefix": 100, "prefix": 50, "suffix": 50}
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
    file = folder / f"forget_sets/lm_extraction_{size}_{number}.csv"
    texts: list[Text] = []
    for line, row in enumerate(read_csv(file, ("doc_id", "corpus", "text")), start=1):
        if not row["doc_id"].isdigit():
            raise DataError(f"{file}, row {line}: doc_id '{row['doc_id']}' is not a row number")
        doc = int(row["doc_id"])
        if any(text.row == doc for text in texts):
            raise DataError(f"{file}, row {line}: doc_id {doc} is there twice")
        ids = None if arrays is None else array_text(arrays, doc, f"{file}, row {line}").ids
        texts.append(Text(doc, row["corpus"], row["text"], ids))
    return texts


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
        other = int(file.stem.rpartition("_")[2])
        if other != number:
            found |= {text.row: text for text in published(folder, 128, other, arrays)}
    texts = [text for row, text in sorted(found.items()) if row not in known]
    if not texts:
        raise DataError(
            f"dataset.unseen_source=forget_sets: {folder / 'forget_sets'} has no set of 128 with another "
            "number; use dataset.unseen_source=pile"
        )
    return texts


def read_arrays(folder: Path) -> np.ndarray:
    """Return the benchmark's rows, (rows, 200) ids.

    Raises:
        DataError: an array is missing, or the shapes do not fit together.
    """
    parts = []
    for name, width in PARTS.items():
        file = folder / f"lm_extraction_benchmark/train_{name}.npy"
        if not file.is_file():
            raise DataError(
                f"no file {file}, which dataset.source=ids and dataset.rows need. {HOW_TO_GET}"
            )
        array = np.load(file, allow_pickle=False)
        if array.ndim != 2 or array.shape[1] != width or array.dtype.kind not in "ui":
            raise DataError(
                f"{file} is {array.dtype} of shape {array.shape}, not integers (rows, {width})"
            )
        parts.append(array)
    if len({len(part) for part in parts}) > 1:
        sizes = ", ".join(f"train_{n}.npy {len(p)}" for n, p in zip(PARTS, parts, strict=True))
        raise DataError(f"the arrays in {folder} have different numbers of rows: {sizes}")
    return np.concatenate(parts, axis=1)


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
