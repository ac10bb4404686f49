"""Weights that do not fit are refused by name: by the check of a folder, and again when they are loaded."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from loku_exp.errors import ModelError
from loku_exp.models import weights
from loku_exp.models.load import load_model
from loku_exp.models.weights import problems
from tests.models.architectures import VOCABULARY, build, folder, settings, tokenizer

CPU = torch.device("cpu")
FILE = "model.safetensors"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"


def said(place: Path, key: str = "target.path") -> list[str]:
    return problems(str(place), key, settings(place), tokenizer())


def changed(place: Path, change, file: str = FILE) -> None:
    """Write the tensors of a file anew after a change."""
    tensors = load_file(place / file)
    tensors = change(tensors) or tensors
    save_file(tensors, place / file, metadata={"format": "pt"})


def without(pattern):
    return lambda tensors: {k: v for k, v in tensors.items() if not re.search(pattern, k)}


def set_to(name, row, value):
    def change(tensors):
        tensors[name][row] = value

    return change


def renamed(prefix):
    return lambda tensors: {f"{prefix}{k}": v for k, v in tensors.items()}


def configured(place: Path, **values) -> None:
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps(config | values))


def another(place: Path) -> None:
    """Put the configuration of another architecture over the weights."""
    folder("gpt_neox", place / "other")
    shutil.copy(place / "other/config.json", place)


MISFITS = {
    "head": (
        lambda place: changed(place, without("lm_head")),
        r"1 tensor of the architecture in config\.json missing: lm_head\.weight;",
    ),
    "layer": (
        lambda place: changed(place, without(r"layers\.1\.")),
        r"9 tensors .* missing: model\.layers\.1\.\S+, \S+, \S+ and 6 more;",
    ),
    "prefix": (
        lambda place: changed(place, renamed("base_model.model.")),
        r"every tensor's name begins with 'base_model\.model\.'.*save the model inside it",
    ),
    "wrapper": (
        lambda place: changed(place, renamed("_orig_mod.")),
        r"every tensor's name begins with '_orig_mod\.'",
    ),
    "adapter": (
        lambda place: changed(place, lambda t: t | {"model.q.lora_A.weight": torch.ones(2)}),
        r"holds an adapter that was not merged",
    ),
    "architecture": (another, r"27 tensors .* missing: gpt_neox\."),
    "too many": (
        lambda place: configured(place, num_hidden_layers=1),
        r"9 tensors in the weights that the architecture .* no place for: model\.layers\.1\.",
    ),
    "shape": (
        lambda place: changed(place, lambda t: t | {"model.norm.weight": torch.ones(15)}),
        r"tensor model\.norm\.weight has shape \(15,\), the architecture .* wants \(16,\)",
    ),
    "width": (
        lambda place: configured(place, intermediate_size=32),
        r"mlp\.down_proj\.weight has shape \(16, 24\), the architecture .* wants \(16, 32\)",
    ),
}


@pytest.fixture
def place(tmp_path):
    return folder("llama", tmp_path / "base")


@pytest.mark.parametrize("misfit", MISFITS)
def test_tensors_that_do_not_fit_are_named_and_never_random(place, misfit):
    damage, match = MISFITS[misfit]
    damage(place)
    found = said(place, "reference.path")
    assert any(re.search(match, line) for line in found), found
    assert all(line.startswith(f"cannot load reference.path={place}: ") for line in found)
    assert all("\n" not in line for line in found)
    for key in ("target.path", "reference.path", "model.path"):
        with pytest.raises(ModelError, match=rf"{key}={re.escape(str(place))}: .*{match}"):
            load_model(settings(place), str(place), CPU, key=key)


def test_what_fits_is_left_alone(place):
    assert said(place) == []
    model = load_model(settings(place), str(place), CPU)
    for saved, there in zip(build("llama").parameters(), model.parameters(), strict=True):
        assert torch.equal(saved, there)


def test_a_tied_head_need_not_be_there_and_buffers_may(tmp_path):
    old = {
        "gpt_neo": {
            "transformer.h.0.attn.attention.bias": torch.ones(1, 1, 4, 4),
            "transformer.h.0.attn.attention.masked_bias": torch.ones(1),
        },
        "llama": {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(2)},
        "gpt_neox": {"gpt_neox.layers.0.attention.rotary_emb.inv_freq": torch.ones(2)},
    }
    for kind, buffers in old.items():
        place = folder(kind, tmp_path / kind)
        changed(place, lambda tensors, buffers=buffers: tensors | buffers)
        assert said(place) == []
        load_model(settings(place), str(place), CPU)
    place = folder("qwen2", tmp_path / "tied", tie_word_embeddings=True)
    assert "lm_head.weight" not in load_file(place / FILE)
    assert said(place) == []
    load_model(settings(place), str(place), CPU)


def test_experts_are_put_together_from_their_files(tmp_path):
    place = folder("mixtral", tmp_path)
    assert any("experts.3." in name for name in load_file(place / FILE))
    changed(place, without(r"layers\.1\..*experts\.3\."))
    assert "model.layers.1.mlp.experts" in "".join(said(place))
    with pytest.raises(ModelError, match=r"model\.layers\.1\.mlp\.experts"):
        load_model(settings(place), str(place), CPU)


def cut(place: Path, size: int) -> None:
    (place / FILE).write_bytes((place / FILE).read_bytes()[:size])


def elsewhere(place: Path) -> None:
    (place / FILE).rename(place / "weights.safetensors")


EMBEDDING = "model.embed_tokens.weight"
DAMAGES = {
    "nan": (
        lambda place: changed(place, set_to(EMBEDDING, 0, float("nan"))),
        rf"{FILE}: tensor model\.embed_tokens\.weight holds values that are not finite",
    ),
    "inf": (
        lambda place: changed(place, set_to("model.norm.weight", 5, float("inf"))),
        rf"{FILE}: tensor model\.norm\.weight holds values that are not finite",
    ),
    "last row": (
        lambda place: changed(place, set_to("lm_head.weight", -1, float("nan"))),
        r"tensor lm_head\.weight holds",
    ),
    "cut": (lambda place: cut(place, 20_000), rf"{FILE} has 20000 bytes, and its header says \d+;"),
    "cut in its header": (lambda place: cut(place, 50), rf"{FILE} is cut off or no safetensors"),
    "empty": (lambda place: cut(place, 0), rf"{FILE} is empty; copy or download it again"),
    "longer": (
        lambda place: (place / FILE).write_bytes((place / FILE).read_bytes() + b"more"),
        rf"{FILE} has \d+ bytes, and its header says \d+;",
    ),
    "pointer": (
        lambda place: (place / FILE).write_bytes(LFS),
        rf"{FILE} is a Git LFS pointer, not the file itself; fetch it: git lfs pull",
    ),
    "none": (lambda place: (place / FILE).unlink(), r"no weights in it \(model\.safetensors or "),
    "other name": (elsewhere, r"no weights in it .*; weights\.safetensors is not looked for"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_named(place, damage):
    harm, match = DAMAGES[damage]
    harm(place)
    (line,) = said(place)
    assert line.startswith(f"cannot load target.path={place}: ")
    assert re.search(match, line), line


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_one_bad_value_is_found_wherever_it_lies(place, value, dtype, monkeypatch):
    monkeypatch.setattr(weights, "STRETCH", 100)
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(place / FILE).items()}
    matrix = tensors[EMBEDDING]
    for row, column in ((0, 0), (101, 7), (VOCABULARY // 2, 3), (VOCABULARY - 1, 15)):
        bad = matrix.clone()
        bad[row, column] = value
        save_file(tensors | {EMBEDDING: bad}, place / FILE, metadata={"format": "pt"})
        (line,) = said(place)
        assert f"tensor {EMBEDDING} holds values that are not finite" in line


def test_values_of_every_kind_are_read():
    for tensor, largest in (
        (torch.tensor(-3.5), 3.5),
        (torch.tensor([[1, -7], [2, 3]]), 7),
        (torch.tensor([True, False]), 1),
        (torch.tensor([0.5, -2.0]).to(torch.float8_e4m3fn), 2),
        (torch.zeros(3, 4, 5, dtype=torch.float64), 0),
        (torch.zeros(0, 4), 1),
    ):
        assert weights._largest(tensor) == largest


@pytest.fixture
def sharded(tmp_path):
    place = folder("llama", tmp_path / "base")
    (place / FILE).unlink()
    build("llama").save_pretrained(place, max_shard_size="30KB")
    assert len(list(place.glob("model-*-of-*.safetensors"))) == 2
    assert said(place) == []
    return place


def test_a_missing_shard_and_a_damaged_one_are_both_named(sharded):
    first, second = sorted(sharded.glob("model-*"))
    first.unlink()
    second.write_bytes(LFS)
    found = said(sharded)
    assert f"{first.name} is missing, and model.safetensors.index.json names it" in found[0]
    assert f"{second.name} is a Git LFS pointer" in found[1]


@pytest.mark.parametrize("content", [b"{", b"[]", b"{}", b'{"weight_map": 3}', LFS, b"\xff\xfe"])
def test_an_index_that_is_none_is_named(sharded, content):
    (sharded / "model.safetensors.index.json").write_bytes(content)
    (line,) = said(sharded)
    assert "model.safetensors.index.json is " in line


def test_shards_without_their_index_are_not_looked_for(sharded):
    (sharded / "model.safetensors.index.json").unlink()
    assert "model-00001-of-00002.safetensors, model-00002" in said(sharded)[0]


# -- pickled weights -----------------------------------------------------------------------------


class Hostile:
    def __reduce__(self):
        return (Path.touch, (Path("/nonexistent/ran"),))


@pytest.fixture
def pickled(place):
    tensors = load_file(place / FILE)
    (place / FILE).unlink()

    def write(change=lambda tensors: tensors, **options):
        torch.save(change(dict(tensors)), place / "pytorch_model.bin", **options)
        return place

    return write


@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_tensors_are_read(pickled, zipped):
    place = pickled(_use_new_zipfile_serialization=zipped)
    assert said(place) == []
    load_model(settings(place), str(place), CPU)
    place = pickled(without("lm_head"), _use_new_zipfile_serialization=zipped)
    assert "missing: lm_head.weight" in said(place)[0]
    place = pickled(
        lambda t: t | {"model.norm.weight": torch.full((16,), torch.nan)},
        _use_new_zipfile_serialization=zipped,
    )
    assert "pytorch_model.bin: tensor model.norm.weight holds values that are not" in said(place)[0]


def test_nothing_in_a_pickle_is_run(pickled):
    (line,) = said(pickled(lambda tensors: tensors | {"x": Hostile()}))
    assert "pytorch_model.bin holds more than tensors" in line
    assert "weights_only" in line
    place = pickled(lambda tensors: [1, 2])
    assert "pytorch_model.bin is not a dictionary of tensors" in said(place)[0]
    (place / "pytorch_model.bin").write_bytes((place / "pytorch_model.bin").read_bytes()[:300])
    assert "pytorch_model.bin " in said(place)[0]


# -- everything at once, and other places --------------------------------------------------------


def test_all_problems_are_said_at_once(sharded):
    first, second = sorted(sharded.glob("model-*"))
    name = next(iter(load_file(second)))
    changed(sharded, set_to(name, 0, float("nan")), second.name)
    first.unlink()
    small = tokenizer().__class__.from_pretrained(str(sharded))
    small.add_special_tokens({"pad_token": "[PAD]"})
    found = problems(str(sharded), "target.path", settings(sharded), small)
    assert len(found) == 3
    for line, match in zip(found, ("pad_token", first.name, name), strict=True):
        assert match in line


def test_places_that_hold_no_model(place, tmp_path):
    def at(path):
        return problems(str(path), "target.path", settings(place), tokenizer())

    assert at(tmp_path / "no/where") == [f"target.path={tmp_path}/no/where: no such folder"]
    assert at("owner/name") == []  # the hub's is looked at when it is there
    (tmp_path / "bare").mkdir()
    assert "no config.json there" in at(tmp_path / "bare")[0]
    (place / "config.json").write_text("{")
    (line,) = at(place)
    assert re.search(r"cannot load target\.path=\S+ \(.*not a valid JSON file", line)
    (place / "config.json").write_text('{"model_type": "llama", "hidden_size": "wide"}')
    (line,) = at(place)
    assert "hidden_size" in line
    assert "\n" not in line
    configured(folder("llama", place), hidden_act="nowhere")
    (line,) = at(place)
    assert "the model that config.json describes cannot be built" in line
    assert "nowhere" in line


def test_values_that_are_not_finite_are_refused_at_load_too(place):
    changed(place, set_to("model.norm.weight", 5, float("nan")))
    with pytest.raises(ModelError, match=r"target\.path=.*values that are not finite"):
        load_model(settings(place), str(place), CPU, key="target.path")


def test_weights_that_were_never_written_are_refused(tmp_path):
    place = folder("llama", tmp_path / "base")
    changed(place, lambda tensors: {k: torch.zeros_like(v) for k, v in tensors.items()})
    (line,) = said(place)
    assert "all of its matrices are zero" in line


def test_one_matrix_of_zeros_is_warned_of(tmp_path, caplog):
    place = folder("llama", tmp_path / "base")
    changed(place, set_to("lm_head.weight", slice(None), 0.0))
    assert said(place) == []
    assert "1 matrices are zero: lm_head.weight" in caplog.text


def test_a_gguf_in_place_of_weights_says_what_makes_a_folder_of_it(tmp_path):
    place = folder("llama", tmp_path / "base")
    (place / FILE).rename(place / "model.gguf")
    (line,) = said(place)
    assert "model.gguf is not looked for: python -m loku_exp.from_gguf" in line
