"""What a notebook holds is read as texts or rows."""

import numpy as np
import pandas as pd
import pytest

from loku_exp.data.in_memory import listed

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
