"""What changes numbers changes the identity of a run, wherever its files lie."""

import json
import os
from types import SimpleNamespace

import pytest
from tokenizers.processors import TemplateProcessing
from transformers import AutoConfig

from loku_exp.config.compose import compose_config
from loku_exp.config.schema import Component
from loku_exp.models import identity
from loku_exp.models.tokenizer import train_tokenizer
from loku_exp.runtime import cache
from loku_exp.runtime.cache import Cache
from loku_exp.stages import inputs
from loku_exp.stages.finetuning import training_recipe
from loku_exp.stages.identity import made_by, run_id
from loku_exp.stages.inputs import load_inputs
from loku_exp.subject import Subject

SMALL = ["experiment=quick"]


def test_hub_weights_are_told_apart_by_revision(monkeypatch):
    asked = []

    class Loaded:
        _commit_hash = None

    def from_pretrained(path, **options):
        asked.append((path, options))
        return Loaded()

    monkeypatch.setattr(AutoConfig, "from_pretrained", from_pretrained)
    arguments = ["model=hf", "dataset=toy_tofu", "model.path=a/b", "reference.source=none"]
    model = compose_config([*arguments, "model.revision=v2", "model.trust_remote_code=true"]).model
    assert identity.weights_digest("a/b", "model.path", model) == "a/b@v2"
    assert identity.weights_digest("c/d", "target.path", model) == "c/d@None"
    assert [options["revision"] for _, options in asked] == ["v2", None]
    assert all(options["trust_remote_code"] for _, options in asked)


def test_what_no_loader_reads_changes_no_identity_of_weights(tmp_path):
    model = compose_config(
        ["model=hf", "dataset=toy_tofu", "model.path=a/b", "reference.source=none"]
    ).model
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_text("{}")
    before = identity.weights_digest(str(tmp_path), "model.path", model)
    (tmp_path / ".cache/huggingface").mkdir(parents=True)
    for name in ("README.md", "LICENSE", ".gitattributes", ".cache/huggingface/model.metadata"):
        (tmp_path / name).write_text("downloaded at 12:03")
    assert identity.weights_digest(str(tmp_path), "model.path", model) == before
    (tmp_path / "generation_config.json").write_text("{}")
    assert identity.weights_digest(str(tmp_path), "model.path", model) != before


def test_tokenizers_of_one_vocabulary_that_split_differently_differ():
    plain, with_start = (train_tokenizer(["a question and its answer"], 300) for _ in range(2))
    assert identity.tokenizer_digest(plain) == identity.tokenizer_digest(with_start)
    with_start.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    assert plain.get_vocab() == with_start.get_vocab()
    assert identity.tokenizer_digest(plain) != identity.tokenizer_digest(with_start)


def test_a_users_own_function_enters_by_its_source(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "own_loss.py"
    code = "def mild(forget):\n    return {}\n"
    arguments = [*SMALL, "loss._target_=own_loss.mild", "~loss.retain_weight", "~loss.retain_term"]
    ids = []
    for factor in ("1", "22"):
        file.write_text(code.format(factor))
        config = compose_config(arguments)
        ids.append(run_id(config, load_inputs(config, Cache(tmp_path / "cache"))))
    assert ids[0] != ids[1]
    assert identity.own_code(compose_config(SMALL).functions()) == {}


def test_later_knobs_of_data_and_suite_do_the_same(tmp_path):
    def named(*words):
        config = compose_config([*SMALL, *words])
        return run_id(config, load_inputs(config, Cache(tmp_path / "cache")))

    assert named() == named("~dataset.num_holdout") == named("~evaluation.membership")
    ids = {named(), named("dataset.num_holdout=2"), named("evaluation.membership=[loss]")}
    assert len(ids) == 3


def test_a_base_that_is_trained_with_another_attention_is_another_base(tmp_path):
    """Its weights differ in their last bits; what the architecture has anyhow is not in its name."""

    def named(*words):
        config = compose_config([*SMALL, *words])
        return training_recipe("target", config, load_inputs(config, Cache(tmp_path / "cache")))

    assert named() == named("model.attention=auto") == named("model.attention=eager")
    assert "attention" not in named()
    assert named("model.attention=flash_attention_2") != named()


@pytest.mark.parametrize("loss", ["gd", "ihl"])
def test_a_knob_that_came_later_leaves_the_runs_before_it_their_names(tmp_path, loss):
    def named(*words):
        config = compose_config([*SMALL, f"loss={loss}", *words])
        return run_id(config, load_inputs(config, Cache(tmp_path / "cache")))

    assert named() == named("~loss.retain_term")
    assert named() != named("loss.retain_term=kl")


def test_a_file_is_read_once_while_it_stays_as_it_is(tmp_path, monkeypatch):
    file = tmp_path / "weights"
    file.write_text("one")
    first = cache.file_digest(file)
    with monkeypatch.context() as without:
        without.setattr(cache.hashlib, "file_digest", pytest.fail)
        assert cache.file_digest(file) == first
    file.write_text("two")
    os.utime(file, ns=(1, 1))
    assert cache.file_digest(file) != first


def test_what_a_users_own_attack_makes_is_known_by_code_knobs_and_data(tmp_path, monkeypatch):
    """So an attack that leaves the identity as it was is not answered from what its subject said."""
    monkeypatch.syspath_prepend(tmp_path)
    source = tmp_path / "own_attack.py"
    source.write_text("def attack(subject):\n    return subject\n")
    made = Subject("target", "pretrained", "as it was", None)

    def known(target="own_attack.attack", data="a", seed=0, **knobs):
        inputs = SimpleNamespace(corpus=SimpleNamespace(digest=lambda: data))
        return made_by(Component(_target_=target, **knobs), made, inputs, seed)

    found = [known(), known(data="b"), known(seed=1), known(bits=4), known(bits=5)]
    source.write_text("def attack(subject):\n    return None\n")
    found += [known(), known("loku_exp.attacks.relearn.relearn")]
    assert len(set(found)) == len(found)
    assert found[-1] == "as it was"


def test_files_of_ones_own_may_lie_anywhere(tmp_path, monkeypatch, shared_cache):
    """A run with relative paths is the run with absolute ones, and the one of a copy."""
    ids = []
    for place in ("one", "two"):
        folder = tmp_path / place
        folder.mkdir()
        for name in ("f", "r"):
            rows = [{"text": f"{name} {number} " + "word " * 20} for number in range(4)]
            (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        monkeypatch.chdir(folder)
        for base in ("", f"{folder}/"):
            config = compose_config(
                ["model=toy_neo", "dataset=texts", f"dataset.forget={base}f.jsonl",
                 f"dataset.retain={base}r.jsonl", "reference.source=none", "evaluation.n=[3]"]
            )  # fmt: skip
            ids.append(run_id(config, load_inputs(config, Cache(shared_cache))))
    assert len(set(ids)) == 1


def test_a_task_of_ones_own_enters_as_it_is_written(tmp_path):
    (tmp_path / "mine.yaml").write_text("task: mine\ndoc_to_text: a\n")
    (tmp_path / "data.bin").write_text("large")
    before = inputs._digest_of([], str(tmp_path))
    assert before == inputs._digest_of([], str(tmp_path)) != inputs._digest_of([], None)
    (tmp_path / "data.bin").write_text("larger")
    assert before == inputs._digest_of([], str(tmp_path))
    (tmp_path / "mine.yaml").write_text("task: mine\ndoc_to_text: b\n")
    assert before != inputs._digest_of([], str(tmp_path))
