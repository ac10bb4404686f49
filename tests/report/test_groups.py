"""What may stand in one table, what is one arm, what is a unit."""

import pytest

from loku_exp.report.collect import collect
from loku_exp.report.drawing import variant
from loku_exp.report.groups import Arm, group_runs
from loku_exp.report.units import Unit, unit_of, unit_text
from tests.report.factory import edit, tdec, tofu


def groups_of(root):
    return group_runs(collect(root).runs)


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("truth_ratio", "arithmetic", "truth_ratio: arithmetic"),
        ("scoring", "another", "scoring: another"),
        ("limit", 100, "limit: 100"),
        ("rows", {"forget": 400, "retain": 400, "authors": 100, "facts": 117}, "rows of forget"),
        ("data_digest", "other-data", "data other-data"),
        ("invented_later", 1, "invented_later: 1"),
    ],
)
def test_another_protocol_is_another_group(tmp_path, key, value, shown):
    tofu(tmp_path)
    tofu(tmp_path, loss="gd", **{key: value})
    first, second = groups_of(tmp_path)
    assert len(first.runs) == len(second.runs) == 1
    assert any(shown in group.headline for group in (first, second))
    assert first.headline != second.headline


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record["run"].update(toy=True, label="TOY data"),
        lambda record: record["run"].update(format=1),
        lambda record: record["models"]["target"].update(weights="from_scratch"),
        lambda record: record["run"]["choices"].update(model="llama2"),
    ],
)
def test_toy_format_and_weights_are_never_mixed(tmp_path, change):
    tofu(tmp_path)
    edit(tofu(tmp_path, loss="gd"), change)
    assert [len(group.runs) for group in groups_of(tmp_path)] == [1, 1]


def test_a_headline_tells_nothing_of_what_a_run_has_not(tmp_path):
    tofu(tmp_path)
    tofu(tmp_path, loss="gd", target_run="0123456789ab")
    told = sorted(group.headline for group in groups_of(tmp_path))
    assert "target_run" not in told[0]
    assert told[1] == f"{told[0]} · target_run: 0123456789ab"


def test_toys_come_last_and_say_so(tmp_path):
    edit(tofu(tmp_path, loss="ga"), lambda r: r["run"].update(toy=True, label="TOY data"))
    tofu(tmp_path)
    real, toy = groups_of(tmp_path)
    assert (real.toy, toy.toy) == (False, True)
    assert "TOY data" in toy.headline
    assert any("TOY data: says nothing" in note for note in toy.notes)


def test_splits_of_tofu_are_groups_and_sets_of_tdec_are_units(tmp_path):
    for split in ("forget05", "forget10"):
        tofu(tmp_path, split=split)
    for number in (0, 1, 2):
        tdec(tmp_path, forget_set=number)
    sizes = {group.headline: len(group.runs) for group in groups_of(tmp_path)}
    assert sorted(sizes.values()) == [1, 1, 3]
    (extraction,) = [g for g in groups_of(tmp_path) if len(g.runs) == 3]
    assert {unit_of(run).forget_set for run in extraction.runs} == {"32_0", "32_1", "32_2"}
    assert "3 forget sets (32_0, 32_1, 32_2)" in extraction.notes[0]


def test_a_set_with_two_data_is_not_averaged(tmp_path):
    tdec(tmp_path, forget_set=0)
    tdec(tmp_path, forget_set=0, loss="gd", data_digest="changed")
    tdec(tmp_path, forget_set=1)
    assert [len(group.runs) for group in groups_of(tmp_path)] == [1, 1, 1]


def test_how_a_base_was_trained_on_another_machine_is_no_setting_of_a_method(tmp_path):
    """The card took 16 rows of a base's update at a time, the processor 8: every method was there twice."""
    for base, size in enumerate((8, 16)):
        folder = tofu(tmp_path, base=base)
        attention = ("sdpa", "eager")[base]
        (folder / "config.yaml").write_text(
            f"model: {{finetuning: {{micro_batch_size: {size}}}, attention: {attention}}}\n"
        )
    (group,) = groups_of(tmp_path)
    assert {arm.extras for arm in group.arms.values()} == {""}
    assert len(group.by_arm()) == 1


def test_a_setting_outside_the_choices_makes_another_arm(tmp_path):
    tofu(tmp_path)
    fast = tofu(tmp_path, seed=1)
    text = (fast / "config.yaml").read_text().replace("0.0002", "0.001")
    (fast / "config.yaml").write_text(text)
    (group,) = groups_of(tmp_path)
    labels = {group.label(arm) for arm in group.by_arm()}
    assert labels == {"IHL + FILA, learning_rate 0.0002", "IHL + FILA, learning_rate 0.001"}


def test_what_sets_runs_of_one_rank_apart_is_told_of_all_ranks(tmp_path):
    """So a method at one rate is one line over ranks; alpha goes with the rank and tells nothing."""

    def at(rate, rank):
        folder = tofu(tmp_path / str(rate), rank=rank)
        text = f"training: {{learning_rate: {rate}}}\nlora: {{rank: {rank}, alpha: {2 * rank}}}\n"
        (folder / "config.yaml").write_text(text)

    for rank in (4, 16, 32):
        at(0.003, rank)
    at(0.001, 16)
    (group,) = groups_of(tmp_path)
    told = {(arm.rank, arm.extras) for arm in group.arms.values()}
    assert told == {(rank, "learning_rate 0.003") for rank in (4, 16, 32)} | {
        (16, "learning_rate 0.001")
    }


def test_a_knob_that_came_later_sets_no_runs_apart(tmp_path):
    loss = "loku_exp.losses.builtin.ihl"
    for seed, later in enumerate(["", "\n  retain_term: ce", "\n  retain_term: kl"]):
        file = tofu(tmp_path, seed=seed) / "config.yaml"
        file.write_text(file.read_text().replace("x.ihl", loss + later))
    (group,) = groups_of(tmp_path)
    sizes = {group.label(arm): len(runs) for arm, runs in group.by_arm().items()}
    assert sizes == {"IHL + FILA, retain_term ce": 2, "IHL + FILA, retain_term kl": 1}


@pytest.mark.parametrize(
    ("function", "later"),
    [("tofu.load_tofu", "holdout: false"), ("toy_tofu.load_toy_tofu", "num_holdout: 0")],
)
def test_nor_does_one_of_a_dataset(tmp_path, function, later):
    for seed, knob in enumerate(["", f", {later}"]):
        with (tofu(tmp_path, seed=seed) / "config.yaml").open("a") as file:
            file.write(f"dataset: {{_target_: loku_exp.data.{function}{knob}}}\n")
    (group,) = groups_of(tmp_path)
    assert [group.label(arm) for arm in group.by_arm()] == ["IHL + FILA"]


def test_where_files_of_own_data_lie_sets_no_runs_apart(tmp_path):
    for base, place in enumerate(["/one", "/other"]):
        with (tofu(tmp_path, base=base) / "config.yaml").open("a") as file:
            files = ", ".join(
                f"{key}: {place}/{key}.jsonl" for key in ("forget", "retain", "holdout")
            )
            file.write(f"dataset: {{_target_: loku_exp.data.own_qa.load_qa, {files}}}\n")
    (group,) = groups_of(tmp_path)
    assert [group.label(arm) for arm in group.by_arm()] == ["IHL + FILA"]


def test_labels_name_only_what_differs(tmp_path):
    tofu(tmp_path, rank=4)
    tofu(tmp_path, rank=8)
    tofu(tmp_path, loss="gd", init=None, rank=None)
    (group,) = groups_of(tmp_path)
    assert [group.label(arm) for arm in group.by_arm()] == [
        "IHL + FILA, rank 4",
        "IHL + FILA, rank 8",
        "GD, all weights",
    ]


def test_only_the_unlearning_seed_varies(tmp_path):
    for seed in (0, 1, 2):
        tofu(tmp_path, seed=seed)
    (group,) = groups_of(tmp_path)
    assert "Only the unlearning seed varies (0, 1, 2)" in group.notes[0]
    assert len({unit_of(run) for run in group.runs}) == 1


def test_a_repeat_is_listed_and_not_counted(tmp_path):
    old, new = tofu(tmp_path, seed=0), tofu(tmp_path, seed=1)
    for folder in (old, new):
        edit(folder, lambda record: record["run"].update(id="same"))
    (group,) = groups_of(tmp_path)
    assert [run.folder for run in group.runs] == [new]  # the newer one
    assert [run.folder for run in group.repeats] == [old]
    assert any("1 repeated" in note for note in group.notes)


def test_unlike_targets_under_one_seed_are_said(tmp_path):
    tofu(tmp_path)
    other = tofu(tmp_path, loss="gd")
    (group,) = groups_of(tmp_path)
    assert not any("other weights" in note for note in group.notes)
    edit(other, lambda record: record["models"]["target"]["metrics"].update(forget_prob=0.7))
    (group,) = groups_of(tmp_path)
    assert any("other weights" in note for note in group.notes)


def test_a_reference_of_a_log_is_said_to_be_foreign(tmp_path):
    foreign = {"weights": "published_log", "path": "logs/TOFU_EVAL.json"}
    folder = tofu(tmp_path)
    edit(folder, lambda record: record["models"]["reference"].update(foreign))
    (group,) = groups_of(tmp_path)
    (note,) = [note for note in group.notes if "foreign" in note]
    assert "rows are those of the log logs/TOFU_EVAL.json" in note


def test_a_missing_configuration_is_said(tmp_path):
    (tofu(tmp_path) / "config.yaml").unlink()
    (group,) = groups_of(tmp_path)
    assert any("1 runs have no readable config.yaml" in note for note in group.notes)


def test_what_a_method_alone_says_of_its_protocol_sets_no_runs_apart(tmp_path):
    tofu(tmp_path)
    tofu(tmp_path, loss="gd")

    def wrapped(record):
        record["run"]["choices"] = {"model": "phi", "dataset": "tofu", "method": "cover_up"}
        record["protocol"]["its own"] = {"strength": 3}
        del record["protocol"]["updates"]

    edit(tofu(tmp_path, seed=1), wrapped)
    (group,) = groups_of(tmp_path)
    assert [group.label(arm) for arm in group.by_arm()] == ["GD + FILA", "IHL + FILA", "cover up"]


def test_an_attack_on_some_runs_sets_no_runs_apart(tmp_path):
    tofu(tmp_path)
    edit(tofu(tmp_path, loss="gd"), attacked)
    assert len(groups_of(tmp_path)) == 1


def attacked(record):
    for name in ("target", "unlearned", "reference"):
        part = record["models"][name] | {"role": "attacked", "derived_from": name}
        record["models"][f"{name}+relearn"] = part


@pytest.mark.parametrize(
    ("units", "said"),
    [
        ([Unit(0, 0, "a")], ""),
        ([Unit(0, 0, "a"), Unit(0, 0, "b")], "forget set a"),
        ([Unit(0, 0, "a"), Unit(1, 1, "a")], "base seed 0, reference seed 0"),
    ],
)
def test_a_unit_is_what_differs(units, said):
    assert unit_text(units[0], units) == said


def test_a_setting_has_the_same_dashes_at_every_rank():
    slow, fast = (
        {rank: Arm("IHL + FILA", rank, "all", "", f"learning_rate {rate}") for rank in (4, 16)}
        for rate in ("0.001", "0.003")
    )
    arms = [fast[4], slow[16], fast[16]]
    looks = [variant(arms, arm) for arm in arms]
    assert looks[0] == looks[2] != looks[1]


def test_a_setting_looks_the_same_in_every_method_and_a_lone_marker_tells():
    def arms_of(method, *rates):
        return [Arm(method, 16, "all", "", f"learning_rate {rate}") for rate in rates]

    fila, vanilla, gd = (
        arms_of("IHL + FILA", "0.003", "0.001"),
        arms_of("IHL + vanilla", "0.01", "0.003"),
        arms_of("GD + FILA", "0.003"),
    )
    arms = [*vanilla, *fila, *gd]
    usual, lower = (variant(arms, arm) for arm in fila)
    assert usual == variant(arms, vanilla[1]) == {"linestyle": "-", "alpha": 1}
    higher = variant(arms, vanilla[0])
    assert len({look["alpha"] for look in (usual, lower, higher)}) == 3
    assert variant(arms, gd[0]) == {}  # nothing to be told from
