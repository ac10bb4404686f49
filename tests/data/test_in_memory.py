"""What a notebook holds is read as texts or rows."""

import json

import numpy as np
import pandas as pd
import pytest

from loku_exp.data.in_memory import listed, write_rows
from loku_exp.errors import DataError

TEXTS = ["one text", "another", "and one more"]


@pytest.mark.parametrize(
    "rows",
    [
        iter(TEXTS),
        np.array(TEXTS),
        pd.Series(TEXTS),
        dict.fromkeys(TEXTS).keys(),
    ],
    ids=["generator", "array", "series", "keys"],
)
def test_what_a_notebook_holds_is_read_as_a_list(rows):
    assert [str(row) for row in listed("forget", rows)] == TEXTS


def test_a_data_frame_islisted():
    rows = [{"question": "Who?", "answer": "Nobody."}, {"question": "Where?", "answer": "Here."}]
    assert listed("forget", pd.DataFrame(rows)) == rows


def test_cells_of_numpy_are_written_as_lists(tmp_path):
    frame = pd.DataFrame({"question": ["Who?"], "answer": ["Nobody."], "n": np.array([3])})
    frame["perturbed_answer"] = [
        np.array(["Somebody.", "All."], dtype=object)
    ]  # as parquet is read
    written = json.loads(write_rows(listed("forget", frame), tmp_path).read_text())
    assert written["perturbed_answer"] == ["Somebody.", "All."]
    assert written["n"] == 3


@pytest.mark.parametrize("column", [{"made": [pd.Timestamp("2026-01-01")]}, {3: ["x"]}])
def test_what_no_file_can_hold_is_refused_in_a_line(column, tmp_path):
    frame = pd.DataFrame({"question": ["Who?"], "answer": ["Nobody."]} | column)
    with pytest.raises(DataError, match="leave the other columns out"):
        write_rows(listed("forget", frame), tmp_path)
