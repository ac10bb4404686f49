"""Registered claims: the rule by hand, pairs by hand, and runs that do not belong, by name."""

import json
from itertools import pairwise
from pathlib import Path
from statistics import fmean

import pytest
from pydantic import ValidationError

from loku_exp.claims import __main__ as program
from loku_exp.claims import shown
from loku_exp.claims.judging import Verdict, judge_claims, verdict_of
from loku_exp.claims.reading import OF_RUN
from loku_exp.claims.registered import Claim, Claims, read_claims
from loku_exp.config.groups import conf_dir
from loku_exp.evaluation.catalogue import ABILITIES
from loku_exp.evaluation.tofu.judge import CATALOGUE
from loku_exp.report.collect import collect
from loku_exp.report.estimates import Estimate
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
                record["run"]["id"] += str(rate)  # noqa: B023
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
        str(old): "other data, rows, recipe or format than most",
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


def test_the_numbers_of_an_axis_do_not_run_into_each_other(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(shown, "finished", lambda figure, *_: drawn.append(figure))
    claim = one(a={"loss": "ihl"}, side="above", margin=0.02).claims[0]
    bounds = [(-0.143, -0.032), (-0.035, -0.006), (-0.735, 0.68), (0.026, 0.03)]
    shown._draw(
        [Verdict(claim, "no", estimate=Estimate(fmean(ends), *ends, 4)) for ends in bounds],
        tmp_path,
    )
    for axis in drawn[0].axes:
        drawn[0].canvas.draw()
        low, high = axis.get_xlim()
        ticks = zip(axis.get_xticks(), axis.get_xticklabels(), strict=True)
        boxes = [label.get_window_extent() for x, label in ticks if low <= x <= high]
        assert len(boxes) > 1
        assert all(a.x1 < b.x0 for a, b in pairwise(boxes))


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


def at_rate(folder: Path, rate: float, at_level: float, chosen_by: float | None = None) -> Path:
    """Give a run a rate, and what it keeps where it comes down to the level; None: it never does."""

    def line(record):
        record["run"]["id"] += str(rate)
        known = (0.9, 0.8, 0.6, 0.3, 0.2, 0.1) if at_level is not None else (0.9,) * 6
        for point, value in zip(record["curve"], known, strict=True):
            point["metrics"] |= {"forget_prob": value, "retain_prob": at_level or 0}
            point["halves"] = [
                {"forget_prob": value, "retain_prob": kept or 0} for kept in (chosen_by, at_level)
            ]

    config = edit(folder, line) / "config.yaml"
    config.write_text(config.read_text().replace("0.0002", str(rate)))
    return folder


BEST = {"a": {"loss": "ihl"}, "b": {"loss": "gd"}, "at": "level", "best": True}


def test_a_repeated_run_counts_once(tmp_path):
    tofu(tmp_path, base=0, metrics={"retain_prob": 0.8})
    tofu(tmp_path, base=1, metrics={"retain_prob": 0.9})
    claims = one(a={"loss": "ihl"}, side="above", margin=0)
    before = judged(claims, tmp_path)[0].estimate
    again = tofu(tmp_path / "again", base=0, metrics={"retain_prob": 0.7})
    edit(again, lambda record: record["run"].update(started="2030-01-01T00:00:00+00:00"))
    verdict, found = judged(claims, tmp_path)
    assert (found.runs, list(found.left_out.values())) == (2, ["a newer run repeats it"])
    assert before.value == pytest.approx(0.85)
    assert verdict.estimate.value == pytest.approx(0.8)


@pytest.mark.parametrize("change", [{"data_digest": "other"}, {"updates": 7}, {"truth_ratio": "x"}])
def test_other_data_recipe_or_scoring_under_the_same_names_is_left_out(tmp_path, change):
    for base in range(2):
        tofu(tmp_path, base=base)
    other = tofu(tmp_path, base=2, **change)
    _, found = judged(one(a={"loss": "ihl"}, side="above", margin=0), tmp_path)
    assert (found.runs, list(found.left_out)) == (2, [str(other)])


def test_runs_of_another_label_are_left_out(tmp_path):
    for base in range(2):
        tofu(tmp_path, base=base)
    other = edit(tofu(tmp_path, base=2), lambda record: record["run"].update(label="other weights"))
    _, found = judged(one(a={"loss": "ihl"}, side="above", margin=0), tmp_path)
    assert list(found.left_out) == [str(other)]


def test_where_one_arm_has_more_rates_both_are_read_at_those_they_share(tmp_path):
    for base in range(2):
        for rate, kept in {1e-3: 0.9, 1e-4: 0.5}.items():
            at_rate(tofu(tmp_path / str(rate), loss="ihl", base=base), rate, kept)
        at_rate(tofu(tmp_path, loss="gd", base=base), 1e-4, 0.4)
    arms = {"a": {"loss": "ihl"}, "b": {"loss": "gd"}, "at": "level"}
    verdict, _ = judged(one(**arms, side="above", margin=0), tmp_path)
    assert verdict.estimate.value == pytest.approx(0.5 - 0.4)  # and not (0.9 + 0.5) / 2 - 0.4
    assert verdict.uneven == 2
    best, _ = judged(one(**BEST, side="above", margin=0), tmp_path)
    assert (best.says, best.uneven) == ("no runs", 2)


def test_the_best_rate_is_one_of_its_own_rank_and_reaches_the_level(tmp_path):
    """Rank 8 is best at 1e-3; that rank 4 never comes down at it says nothing about rank 8."""
    for base in range(2):
        at_rate(tofu(tmp_path / "a", base=base), 1e-3, 0.9, 0.9)
        at_rate(tofu(tmp_path / "b", base=base), 1e-4, 0.7, 0.7)
        at_rate(tofu(tmp_path / "a", base=base, rank=4), 1e-3, None)
        at_rate(tofu(tmp_path / "b", base=base, rank=4), 1e-4, 0.6, 0.6)
        for rate, place in {1e-3: "a", 1e-4: "b"}.items():
            for rank in (4, 8):
                folder = tofu(tmp_path / place, loss="gd", base=base, rank=rank)
                at_rate(folder, rate, 0.5, 0.5)
    verdict, _ = judged(one(**BEST, side="above", margin=0), tmp_path)
    assert verdict.estimate.value == pytest.approx(((0.9 - 0.5) + (0.6 - 0.5)) / 2)
    assert verdict.missed == 2
    below, _ = judged(one(**BEST, side="below", margin=0), tmp_path)
    assert (
        below.estimate.value == verdict.estimate.value
    )  # what is good does not depend on the claim


@pytest.mark.parametrize("side", ["above", "below"])
def test_the_best_rate_of_updates_is_the_one_with_fewest(tmp_path, side):
    """A claim that one arm takes more updates was read at the rate at which each takes most."""
    for base in range(2):
        at_rate(tofu(tmp_path / "a", base=base), 1e-3, 0.9, 0.9)
        slow = at_rate(tofu(tmp_path / "b", base=base), 1e-4, 0.9, 0.9)

        def later(record):
            for point, known in zip(record["curve"], (0.9, 0.9, 0.9, 0.9, 0.6, 0.3), strict=True):
                for values in (point["metrics"], *point["halves"]):
                    values["forget_prob"] = known

        edit(slow, later)
    claims = one(a={"loss": "ihl"}, at="level", best=True, quantity="updates", side=side, margin=0)
    assert judged(claims, tmp_path)[0].estimate.value == pytest.approx(24 + 12 * 5 / 6)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"best": True, "at": "end"}, "best: rates are chosen on one half of the rows"),
        ({"best": True, "at": "level", "same_rate": True, "b": {"loss": "gd"}}, "best: rates are"),
        ({"best": True, "at": "level", "b": {"subject": "target"}}, "best: rates are chosen"),
        ({"same_rate": True}, "same_rate: there is no second arm"),
        ({"margin": float("nan")}, "finite number"),
        ({"b": {"subject": "target", "loss": "gd"}}, "subject: b: .* nothing stands beside"),
        ({"a": {"loss": "ihl", "subject": "target"}}, "subject: b: .* a has none"),
        ({"b": {"subject": "target"}, "quantity": "collapsed"}, "collapsed is of a run"),
        ({"b": {}}, "b: it names no choice"),
        ({"side": "within"}, "margin: .* must be above 0"),
        ({"side": "within", "margin": -0.1}, "margin: .* must be above 0"),
        ({"quantity": "updates"}, "updates: they are counted to the level"),
    ],
)
def test_a_rule_that_could_not_be_followed_is_refused(fields, said):
    """It was judged by another one, or stayed undecided whatever the runs."""
    with pytest.raises(ValidationError, match=said):
        one(**{"a": {"loss": "ihl"}, "side": "above", "margin": 0} | fields)


def test_two_claims_of_one_id_are_refused():
    claims = one(a={"loss": "ihl"}, side="above", margin=0).model_dump()
    with pytest.raises(ValidationError, match="claims: c stands there twice"):
        Claims.model_validate(claims | {"claims": 2 * claims["claims"]})


def test_a_damaged_run_is_named_once(tmp_path, capsys):
    for base in range(2):
        tofu(tmp_path / "runs", base=base)
    spoiled = tofu(tmp_path / "runs", base=2) / "metrics.json"
    spoiled.write_text(spoiled.read_text()[:-9])
    file = tmp_path / "claims.yaml"
    file.write_text(json.dumps(one(a={"loss": "ihl"}, side="above", margin=0).model_dump()))
    program.main([str(tmp_path / "runs"), "--claims", str(file)])
    (said,) = (line for line in capsys.readouterr().out.splitlines() if "left out: " in line)
    assert said.count(str(spoiled)) == 1


def test_a_quantity_that_no_run_has_is_named(tmp_path):
    tofu(tmp_path)
    claims = one(a={"loss": "ihl"}, quantity="retian_prob", side="above", margin=0)
    verdict, _ = judged(claims, tmp_path)
    assert (verdict.says, verdict.why) == ("no runs", "no run has the quantity 'retian_prob'")


def test_a_choice_that_no_run_has_is_named(tmp_path):
    tofu(tmp_path, base=0)
    for arms in ({"a": {"loos": "ihl"}}, {"a": {"loss": "ihl"}, "b": {"loos": "gd"}}):
        verdict, _ = judged(one(**arms, side="above", margin=0), tmp_path)
        assert verdict.says == "no runs"
        assert verdict.why == "an arm names 'loos', which is no choice or key of any run"
    verdict, _ = judged(one(a={"loss": "npo"}, side="above", margin=0), tmp_path)
    assert verdict.why == "no pair of runs to compare"


@pytest.mark.parametrize("at", ["end", "level"])
def test_the_utility_kept_is_a_share_of_the_targets(tmp_path, at):
    for base in range(2):
        tofu(tmp_path, base=base)
    claims = one(a={"loss": "ihl"}, quantity="utility_kept", at=at, side="above", margin=0)
    plain = one(a={"loss": "ihl"}, quantity="model_utility", at=at, side="above", margin=0)
    kept, utility = (judged(found, tmp_path)[0].estimate.value for found in (claims, plain))
    assert kept == pytest.approx(utility / 0.52)


def test_units_that_are_all_alike_are_said_to_be_few(tmp_path):
    for base in range(2):
        tofu(tmp_path, base=base, metrics={"retain_prob": 0.2})
    claims = one(a={"loss": "ihl"}, quantity="collapsed", side="above", margin=0.9)
    verdict, _ = judged(claims, tmp_path)
    assert (verdict.says, verdict.estimate.low, verdict.estimate.high) == ("yes", 1, 1)
    assert verdict.why.startswith("all 2 units alike")


@pytest.mark.parametrize(
    ("side", "margin", "least"),
    [("above", -0.02, -0.02), ("below", 0.1, 0.1), ("within", 0.05, 0.05)],
)
def test_what_would_have_been_called_true_keeps_the_margins_sign(tmp_path, side, margin, least):
    for base, value in enumerate((0.80, 0.81)):
        tofu(tmp_path, base=base, metrics={"retain_prob": value})
    verdict, _ = judged(one(a={"loss": "ihl"}, side=side, margin=margin), tmp_path)
    half = (verdict.estimate.high - verdict.estimate.low) / 2
    if side == "within":
        assert half > margin
        assert verdict.least is None
    else:
        assert verdict.least == pytest.approx(least + half * (1 if side == "above" else -1))
