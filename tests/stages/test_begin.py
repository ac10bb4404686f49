"""The configuration in a run's folder: its places are found from anywhere, its texts are as they were."""

from loku_exp.stages.begin import _absolute


def test_places_become_absolute_and_texts_stay(tmp_path, monkeypatch):
    """A prompt that begins with ~ was taken for a home folder, and ended the run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    template = {"question_start": "~ Question: ", "question_end": "~nobody"}
    given = {"path": "data", "tokenizer": "owner/name", "output_dir": "out", "template": template}
    made = _absolute({"model": given, "seed": 0})
    here = {"path": str(tmp_path / "data"), "output_dir": str(tmp_path / "out")}
    assert made["model"] == given | here
