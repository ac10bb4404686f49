"""Relearning: which rows, what is trained, and that it is kept and the same for every subject."""

from dataclasses import replace

import pytest
import torch

from loku_exp.attacks.relearn import chosen_rows, problems, relearn
from loku_exp.methods.wrapper import Wrapper
from tests.methods import tiny

KNOBS = {
    "rows": 2, "steps": 4, "learning_rate": 5e-3, "batch_size": 2, "rank": 2, "choose": "spread",
}  # fmt: skip


def attacked(workspace, subject=None, **changes):
    return relearn(subject or tiny.target(), tiny.records(), workspace, **KNOBS | changes)


@torch.no_grad()
def losses(subject):
    logits = tiny.logits(subject.load())
    ids = torch.tensor([row.answer.ids for row in tiny.records().forget])
    each = torch.nn.functional.cross_entropy(
        logits[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none"
    )
    return each.mean(1).tolist()


@pytest.mark.parametrize(
    ("count", "choose", "rows"),
    [(2, "spread", [0, 2]), (3, "spread", [0, 1, 2]), (2, "first", [0, 1])],
)
def test_rows_are_spread_over_the_forget_set_or_its_first(count, choose, rows):
    forget = tiny.records().forget
    assert [row.row for row in chosen_rows(forget, count, choose)] == rows


def test_it_learns_the_rows_it_is_given_and_leaves_the_subject_alone(tmp_path):
    workspace, target = tiny.workspace(tmp_path / "run"), tiny.target()
    before = losses(target)
    after = losses(attacked(workspace, steps=30, learning_rate=5e-2))
    assert all(after[row] < before[row] - 0.1 for row in (0, 2))
    assert losses(target) == before


def test_the_first_update_by_hand(tmp_path):
    """After one update of AdamW from B = 0 every element of B is +-rate, and A has not moved."""
    subject = attacked(tiny.workspace(tmp_path / "run"), steps=1)
    from safetensors.torch import load_file

    (file,) = (tmp_path / "cache/relearn").rglob("adapter_model.safetensors")
    matrices = load_file(file)
    b = torch.cat([tensor.flatten() for name, tensor in matrices.items() if "lora_B" in name])
    moved = b[b != 0]
    torch.testing.assert_close(moved.abs(), torch.full_like(moved, 5e-3), rtol=1e-2, atol=0)
    assert len(moved) > 0.5 * len(b)
    assert subject.identity != tiny.target().identity


def test_what_was_attacked_is_loaded_not_trained_again(tmp_path, monkeypatch):
    workspace = tiny.workspace(tmp_path / "run")
    first = attacked(workspace)
    monkeypatch.setattr("loku_exp.attacks.relearn.fit", None)
    tiny.same_weights(first, attacked(workspace))


def test_identity_follows_what_changes_the_weights(tmp_path):
    workspace = tiny.workspace(tmp_path / "run")
    seen = {attacked(workspace).identity}
    for change in (
        {"rows": 3, "batch_size": 1},
        {"steps": 5},
        {"learning_rate": 1e-3},
        {"rank": 1},
    ):
        seen.add(attacked(workspace, **change).identity)
    other = replace(tiny.target(), identity="another model")
    seen.add(attacked(workspace, other).identity)
    assert len(seen) == 6


def test_a_wrapper_is_kept_and_what_it_wraps_is_trained(tmp_path):
    whole = tiny.target()
    wrapped = replace(
        whole, identity="wrapped", load=lambda dtype=None: Wrapper(whole.load(dtype)).eval()
    )
    workspace = tiny.workspace(tmp_path / "run")
    model = attacked(workspace, wrapped, steps=30).load()
    assert isinstance(model, Wrapper)
    expected = attacked(workspace, whole, steps=30).load()
    torch.testing.assert_close(tiny.logits(model.wrapped), tiny.logits(expected))


def test_what_does_not_fit_is_said():
    whole = {"records": tiny.records(), "skeleton": tiny.target().load()}
    assert problems(**whole, rows=4, batch_size=4, rank=16) == []
    (said,) = problems(**whole, rows=5, batch_size=4, rank=2)
    assert "attacks.relearn.rows=5: the forget set has 4 rows" in said
    (said,) = problems(**whole, rows=2, batch_size=3, rank=2)
    assert "attacks.relearn.batch_size=3 is more than attacks.relearn.rows=2" in said
    (said,) = problems(**whole, rows=4, batch_size=4, rank=17)
    assert said.startswith("attacks.relearn.rank=17: the smallest layer")
    assert "has 16 rows or columns; set it to at most that" in said


def test_a_model_that_no_adapter_can_go_on_is_said():
    """The message of the run's own adapter speaks of lora=none, which would change nothing here."""
    bare = tiny.target().load()
    for block in bare.transformer.h:
        block.attn, block.mlp = torch.nn.Identity(), torch.nn.Identity()
    (said,) = problems(tiny.records(), bare, rows=4, batch_size=4, rank=2)
    assert said == ("attacks=[relearn]: no adapter can go on this GPTNeoForCausalLM; leave it out")


def test_what_was_trained_in_another_precision_is_not_taken(tmp_path):
    """Target and reference share a cache over runs, and a folder's identity has no precision."""
    kept = set()
    for number, dtype in enumerate(("float32", "bfloat16")):
        workspace = tiny.workspace(tmp_path / f"run {number}", dtype)
        kept.add(attacked(workspace, replace(tiny.target(dtype), identity="folder")).identity)
    assert len(kept) == len(list((tmp_path / "cache/relearn").glob("*/manifest.json"))) == 2
