"""The GPU benchmark where there is no GPU: a clear line, and its whole code on tiny shapes."""

import json

import pytest
import torch

from benchmarks import gpu, gpu_parts


def test_without_a_gpu_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="needs a CUDA device"):
        gpu.main(["--to", str(tmp_path)])
    assert not list(tmp_path.iterdir())


def test_unknown_shape_is_named(capsys):
    with pytest.raises(SystemExit):
        gpu.main(["--dry-run", "gpt2"])
    assert "no such shape: gpt2" in capsys.readouterr().err


def test_unknown_part_is_named(capsys):
    with pytest.raises(SystemExit):
        gpu.main(["--dry-run", "--leave-out", "fisher"])
    assert "invalid choice: 'fisher'" in capsys.readouterr().err


def test_shapes_of_an_earlier_run_stay(tmp_path, monkeypatch):
    file = tmp_path / "gpu_dry_run.json"
    file.write_text('{"phi": {"check": {}}}')
    monkeypatch.setattr(gpu_parts.Bench, "parts", lambda _: iter([("shape", dict)]))
    monkeypatch.setattr(gpu_parts.Bench, "check", lambda _: {})
    gpu.main(["--dry-run", "--to", str(tmp_path), "gpt_neo_1_3b"])
    found = json.loads(file.read_text())
    assert found["phi"] == {"check": {}}
    assert found["gpt_neo_1_3b"]["shape"]["seconds_of_part"] >= 0


@pytest.mark.slow
def test_dry_run_checks_and_times_every_part(tmp_path):
    gpu.main(["--dry-run", "--to", str(tmp_path), "--leave-out", "low_rank", "gpt_neo_1_3b"])
    (parts,) = json.loads((tmp_path / "gpu_dry_run.json").read_text()).values()
    assert parts.pop("where")["hardware"]["machine"]
    assert parts["low_rank"].pop("left_out") == "asked for"
    assert not [name for name, part in parts.items() if "left_out" in part]
    assert list(parts) == ["check", *gpu_parts.PARTS]
    assert all(error < gpu_parts.TOLERANCE for error in parts["check"].values())
    assert parts["step_micro_batch_2"]["drawn_two_forwards"]["real_tokens_per_second"] > 0


def test_nothing_wrong_is_timed(tmp_path, monkeypatch):
    monkeypatch.setattr(
        gpu_parts, "errors_of", lambda *_: {"step gradient": 0.5, "Fisher, hooks": 1e-6}
    )
    with pytest.raises(SystemExit, match=r"not timed: {'step gradient': 0.5}"):
        gpu.main(["--dry-run", "--to", str(tmp_path), "phi"])


def test_a_part_after_the_deadline_is_left_out_by_name():
    part = gpu.run_part(lambda: {}, torch.device("cpu"), deadline=0.0)
    assert part == {"left_out": "the 600 s were spent"}
