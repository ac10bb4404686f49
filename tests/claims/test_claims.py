"""Registered claims: the rule by hand, pairs by hand, and runs that do not belong, by name."""

import json
from pathlib import Path

import pytest

from loku_exp.claims import __main__ as program
from loku_exp.claims.judging import OF_RUN, judge_claims, verdict_of
from loku_exp.claims.registered import Claim, Claims, read_claims
from loku_exp.config.groups import conf_dir
from loku_exp.evaluation.catalogue import ABILITIES
from loku_exp.evaluation.tofu.judge import CATALOGUE
from loku_exp.report.collect import collect
from tests.report.factory import edit, tofu

REGISTERED = Path(__file__).parents[2] / "docs" / "claims.yaml"
PROTOCOL = {"dataset": "tofu", "model": "phi", "forget_split": "forget10"}


def one(**fields) -> Claims:
    known = {"id": "c", "claim": "A claim.", "quantity": "retain_prob", "at": "end"}
    return Claims(protocol=PROTOCOL, level=0.35, claims=[Claim(**known | fields)])


def judged(claims: Claims, root: Path):
    found = judge_claims(claims, collect(root).runs)
    return found.verdicts[0], found


@pytest.mark.parametrize(
    ("side", "margin", "low", "high", "says"),
    [
        ("above", 0.02, 0.03, 0.05, "yes"),
        ("above", 0.02, 0.01, 0.05, "undecided"),
        ("above", 0.02, -0.05, 0.01, "no"),
        ("above", -0.02, -0.01, 0.05, "yes"),
        ("below", 0, -3, -1, "yes"),
        ("below", 0, -3, 1, "undecided"),
        ("below", 0, 1, 3, "no"),
        ("within", 0.05, -0.04, 0.04, "yes"),
        ("within", 0.05, -0.06, 0.04, "undecided"),
        ("within", 0.05, 0.06, 0.09, "no"),
        ("within", 0.05, -0.09, -0.06, "no"),
    ],
)
def test_the_rule_by_hand(side, margin, low, high, says):
    assert verdict_of(side, margin, low, high) == says


def test_the_registered_file_names_metrics_losses_and_inits_that_exist():
    claims = read_claims(REGISTERED)
    assert len({claim.id for claim in claims.claims}) == len(claims.claims) >= 9
    metrics = {metric.name for metric in CATALOGUE} | {*OF_RUN, *ABILITIES}
    assert [c.quantity for c in claims.claims if c.quantity not in metrics] == []
    for claim in claims.claims:
        for arm in (claim.a, claim.b or {}):
            for group in {"loss", "init"} & arm.keys():
                assert (conf_dir() / group / f"{arm[group]}.yaml").is_file(), claim.id


def test_a_difference_is_of_pairs_and_its_interval_over_bases(tmp_path):
    kept = {"ihl": (0.90, 0.88, 0.86), "gd": (0.80, 0.79, 0.75)}
    for loss, values in kept.items():
        for base, value in enumerate(values):
            for seed in (0, 1):  # seeds repeat a unit
                change = 0.01 * (-1) ** seed
                tofu(
                    tmp_path, loss=loss, base=base, seed=seed,
                    metrics={"retain_prob": value + change},
                )  # fmt: skip
    arms = {"a": {"loss": "ihl"}, "b": {"loss": "gd"}}
    verdict, _ = judged(one(**arms, side="above", margin=0.02), tmp_path)
    assert verdict.pairs == 6
    assert verdict.estimate.n == 3
    assert verdict.estimate.value == pytest.approx((0.10 + 0.09 + 0.11) / 3)
    half = 4.302653 * 0.01 / 3**0.5  # t of two degrees of freedom, standard deviation 0.01
    assert verdict.estimate.high - verdict.estimate.low == pytest.approx(2 * half, rel=1e-5)
    assert verdict.says == "yes"
    assert verdict.least == pytest.approx(half + 0.02, rel=1e-5)
    assert judged(one(**arms, side="above", margin=0.2), tmp_path)[0].says == "no"
    assert judged(one(**arms, side="above", margin=0.1), tmp_path)[0].says == "undecided"


def test_one_base_gives_no_verdict_whatever_its_seeds(tmp_path):
    for loss in ("ihl", "gd"):
        for seed in range(3):
            tofu(tmp_path, loss=loss, seed=seed)
    verdict, _ = judged(one(a={"loss": "ihl"}, b={"loss": "gd"}, side="above", margin=0), tmp_path)
    assert (verdict.says, verdict.why) == ("undecided", "one unit, no interval")
    assert verdict.estimate.low is None


def test_updates_to_a_level_are_read_between_snapshots(tmp_path):
    for base in range(2):

        def line(record):
            for point, known in zip(
                record["curve"], (0.95, 0.75, 0.55, 0.25, 0.2, 0.1), strict=True
            ):
                point["metrics"]["forget_prob"] = known

        edit(tofu(tmp_path, base=base), line)
    verdict, _ = judged(
        one(a={"loss": "ihl"}, quantity="updates", at="level", side="below", margin=40), tmp_path
    )
    # from .55 at update 24 to .25 at update 36: .35 is two thirds of the way
    assert verdict.estimate.value == pytest.approx(24 + 12 * 2 / 3)
    assert verdict.says == "yes"


def test_who_never_comes_down_to_the_level_is_counted(tmp_path):
    def stay(record):
        for point in record["curve"]:
            point["metrics"]["forget_prob"] = 0.9

    for base in range(2):
        edit(tofu(tmp_path, base=base), stay)
    verdict, _ = judged(one(a={"loss": "ihl"}, at="level", side="above", margin=0), tmp_path)
    assert (verdict.says, verdict.missed) == ("no runs", 2)


def test_the_best_rate_is_chosen_on_one_half_and_read_on_the_other(tmp_path):
    """Rate 1e-3 is best on the half to choose by and worse on the other: that is what is reported."""
    for base in range(2):
        for rate, (chosen, other) in {1e-3: (0.9, 0.5), 1e-4: (0.8, 0.7)}.items():

            def halves(record):
                for point, known in zip(
                    record["curve"], (0.9, 0.8, 0.6, 0.3, 0.2, 0.1), strict=True
                ):
                    point["halves"] = [
                        {"forget_prob": known, "retain_prob": value}
                        for value in (chosen, other)  # noqa: B023
                    ]

            folder = edit(tofu(tmp_path / str(rate), base=base), halves)
            config = folder / "config.yaml"
            config.write_text(config.read_text().replace("0.0002", str(rate)))
    verdict, _ = judged(
        one(a={"loss": "ihl"}, at="level", side="above", margin=0.6, best=True), tmp_path
    )
    assert verdict.estimate.value == pytest.approx(0.5)
    assert verdict.says == "no"


def test_a_model_may_be_compared_with_its_own_target(tmp_path):
    for base in range(2):
        tofu(tmp_path, base=base, metrics={"retain_prob": 0.88 + 0.001 * base})
    verdict, _ = judged(
        one(a={"loss": "ihl"}, b={"subject": "target"}, side="above", margin=-0.1), tmp_path
    )
    assert verdict.estimate.value == pytest.approx(0.8805 - 0.92)
    assert verdict.says == "yes"


def test_runs_of_other_data_or_another_format_are_left_out_by_name(tmp_path):
    tofu(tmp_path, base=0)
    tofu(tmp_path, base=1)
    other = tofu(tmp_path, base=2, model="llama2")
    old = edit(tofu(tmp_path, base=3), lambda record: record["run"].update(format=1))
    _, found = judged(one(a={"loss": "ihl"}, side="above", margin=0), tmp_path)
    assert found.runs == 2
    assert found.left_out == {
        str(other): "model=llama2",
        str(old): "other data, rows or format than most",
    }


def test_the_program_prints_draws_and_writes(tmp_path, capsys):
    for loss in ("ihl", "gd", "ga"):
        for init in ("fila", "vanilla"):
            for base in range(2):
                tofu(tmp_path / "runs", loss=loss, init=init, base=base, model="smollm2")
    program.main([str(tmp_path / "runs"), "--claims", str(REGISTERED)])
    said = capsys.readouterr().out
    assert "ga_collapses" in said
    assert "fila_beats_random_subspace" in said
    assert "12 runs judged, 0 left out" in said
    place = tmp_path / "runs" / "claims"
    content = json.loads((place / "claims.json").read_text())
    assert {v["says"] for v in content["verdicts"]} <= {"yes", "no", "undecided", "no runs"}
    assert (place / "claims.png").is_file()
    assert (place / "claims.md").read_text().startswith("| claim ")


@pytest.mark.parametrize("text", ["nonsense", "protocol: {}", "a: [", "claims: [{id: x}]"])
def test_what_is_no_file_of_claims_is_one_line(tmp_path, capsys, text):
    file = tmp_path / "claims.yaml"
    file.write_text(text)
    tofu(tmp_path / "runs")
    with pytest.raises(SystemExit) as ended:
        program.main([str(tmp_path / "runs"), "--claims", str(file)])
    assert ended.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {file}: no file of claims")
    assert error.count("\n") == 1


def test_a_file_or_folder_that_is_not_there_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words, said in (
        (["."], "--claims docs/claims.yaml: no such file; name one: --claims FILE"),
        (["nowhere", "--claims", str(REGISTERED)], "nowhere: no such folder"),
    ):
        with pytest.raises(SystemExit) as ended:
            program.main(words)
        assert ended.value.code == 1
        assert capsys.readouterr().err.startswith(f"error: {said}")
