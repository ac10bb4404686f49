"""One model and one set of texts through a run of the bench and through lm-eval: the same numbers."""

import json

import pytest

from loku_exp.config.compose import compose_config
from loku_exp.results import files as results
from loku_exp.run import run
from tests.evaluation.tofu.openunlearning import log_of

TOFU_SETS = {
    "forget": "tofu_forget10",
    "retain": "tofu_retain",
    "authors": "tofu_authors",
    "facts": "tofu_facts",
}
TDEC_KNOBS = {
    "dataset.length": 32, "dataset.forget_size": 4, "dataset.siblings": 2, "dataset.unseen": 4,
    "dataset.evaluated": 4, "dataset.overlap": "drop",
}  # fmt: skip


@pytest.fixture
def bench(tmp_path, shared_cache, folder):
    """Evaluate the model of `folder` by a run of the bench; the target's metrics."""

    def bench(*overrides):
        config = compose_config([
            "model=hf", f"model.path={folder}", "model.dtype=float32",
            "unlearn=false", "reference.source=none", "evaluation.abilities=[]", f"output_dir={tmp_path}",
            f"cache_dir={shared_cache}", *overrides,
        ])  # fmt: skip
        return results.read(run(config)).models["target"].metrics

    return bench


def same(theirs, ours, sets, tolerance=1e-9):
    """Compare every metric of lm-eval with the bench's; return how many there were."""
    found = 0
    for name, task in sets.items():
        for metric, value in theirs[task].items():
            if metric not in ("n", "model_utility", "model_utility_retain"):
                assert value == pytest.approx(ours[f"{name}_{metric}"], rel=tolerance, abs=1e-12)
                found += 1
    return found


def test_tofu(metrics, bench, folder, tofu):
    ours = bench("dataset=tofu", f"dataset.path={tofu}", "evaluation.rows=5")
    words = {"pretrained": str(folder), "dtype": "float32"}
    given = {"dataset.path": str(tofu), "evaluation.rows": 5}
    theirs = metrics(["tofu_forget10", "tofu_utility"], words, given)
    assert same(theirs, ours, TOFU_SETS) == 2 * 5 + 2 * 3
    for name in ("model_utility", "model_utility_retain"):
        assert theirs["tofu_utility"][name] == pytest.approx(ours[name], rel=1e-9)
    alone = metrics(["tofu_facts"], words, given)  # other batches: equal but for rounding
    assert same(alone, ours, {"facts": "tofu_facts"}, 1e-5) == 3


def test_forget_quality_against_a_log(metrics, folder, tofu, tmp_path):
    answers = {
        "forget": [f"a{row}" for row in range(40, 60)],
        "retain": [f"a{row}" for row in range(8)],
    }
    log = tmp_path / "TOFU_EVAL.json"
    log.write_text(json.dumps(log_of(answers | {"authors": ["x"], "facts": ["x"]})))
    given = {"dataset.path": str(tofu), "evaluation.rows": "all", "reference.path": str(log)}
    words = {"pretrained": str(folder), "dtype": "float32"}
    found = metrics(["tofu_forget10"], words, given)["tofu_forget10"]
    assert 0 <= found["quality"] <= 1
    assert found["ks"] > 0
    assert "quality" not in metrics(["tofu_retain"], words, given)["tofu_retain"]


def test_tdec(metrics, bench, folder, tdec):
    knobs = TDEC_KNOBS | {"dataset.path": str(tdec), "evaluation.n": [3, 10]}
    given = [f"{key}={value}" for key, value in knobs.items()]
    ours = bench("dataset=tdec", *given)
    words = {"pretrained": str(folder), "dtype": "float32"}
    theirs = metrics(["tdec"], words, {f"tdec.{key}": value for key, value in knobs.items()})
    sets = {name: f"tdec_{name}" for name in ("forget", "sibling", "retain", "unseen")}
    assert same(theirs, ours, sets) == 4 * 6


def test_a_model_that_lm_eval_loads_itself(metrics, folder, tofu, tdec):
    from lm_eval.models.huggingface import HFLM

    words = {"pretrained": str(folder), "dtype": "float32"}
    given = {
        f"tdec.{key}": value for key, value in (TDEC_KNOBS | {"dataset.path": str(tdec)}).items()
    }
    given |= {"tofu.dataset.path": str(tofu), "tofu.evaluation.rows": 3}
    tasks = ["tofu_forget10", "tdec_forget"]
    ours = metrics(tasks, words, given)
    theirs = metrics(tasks, words, given, model=HFLM(**words, device="cpu", batch_size=2))
    for task in tasks:
        assert theirs[task] == pytest.approx(ours[task], rel=1e-5)


@pytest.mark.slow
def test_real_rows(metrics, bench, folder, loku_data):
    place = loku_data / "tofu"
    knobs = [
        "dataset=tofu",
        f"dataset.path={place}",
        "dataset.forget_split=forget01",
        "evaluation.rows=2",
    ]
    ours = bench(*knobs)
    given = {"dataset.path": str(place), "evaluation.rows": 2, "dataset.forget_split": "forget01"}
    words = {"pretrained": str(folder), "dtype": "float32"}
    theirs = metrics(["tofu_forget01", "tofu_utility"], words, given)
    assert same(theirs, ours, TOFU_SETS | {"forget": "tofu_forget01"}) == 2 * 5 + 2 * 3
