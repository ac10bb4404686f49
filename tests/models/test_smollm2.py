"""SmolLM2 as it really is: its yaml by shape, and with the weights at hand what it knows and forgets.

The weights are a folder that SMOLLM2 names, e.g. models/smollm2 as ``make smollm2`` writes it.
"""

import os
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from loku_exp.config.compose import compose_config
from loku_exp.evaluation.ability.build import ability
from loku_exp.evaluation.harness import evaluate, limits
from loku_exp.evaluation.lm.answers import Answers
from loku_exp.evaluation.lm.generation import continued
from loku_exp.evaluation.lm.inference import Inference
from loku_exp.evaluation.lm.unlearn_lm import UnlearnLM
from loku_exp.results import files as results
from loku_exp.run import run


@pytest.fixture(scope="module")
def smollm2() -> Path:
    """The folder of the real weights."""
    folder = os.environ.get("SMOLLM2")
    if not folder or not (Path(folder) / "config.json").is_file():
        pytest.skip("SMOLLM2 does not name a folder with SmolLM2-135M-Instruct (make smollm2)")
    return Path(folder).resolve()


@pytest.mark.slow
def test_it_knows_what_everybody_knows(smollm2):
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    model = AutoModelForCausalLM.from_pretrained(smollm2).eval()
    prompts = ["The capital of France is", "Question: Who wrote Hamlet?\nAnswer:"]
    ids = [tuple(tokenizer(prompt).input_ids) for prompt in prompts]
    answers = continued(model, ids, [8, 8], end_of_text=tokenizer.eos_token_id, padding=0)
    said = [tokenizer.decode(answer) for answer in answers]
    assert said[0].startswith(" Paris.")
    assert "William Shakespeare" in said[1]


@pytest.mark.slow
def test_it_answers_easy_questions_above_chance(smollm2, loku_data):
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    model = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.bfloat16)
    where = {"data_dir": str(loku_data / "benchmarks"), "texts_dir": None, "skip_missing": False}
    tasks = ability(["arc_easy_local"], tokenizer, 8192, **where).tasks
    inference = Inference(model, tokenizer, batch_tokens=4096, max_length=8192)
    lm = UnlearnLM(Answers(), lambda: inference)
    found = evaluate(lm, tasks, limits(tasks, 50))
    assert found.metrics["arc_easy_local_acc"] > 0.4  # chance: .25


@pytest.mark.slow
def test_it_forgets_an_author_and_keeps_the_neighbours(smollm2, loku_data, tmp_path):
    """Of 20 rows of one author and 400 of neighbours, learned here for a moment only."""
    overrides = [
        "experiment=tofu_smollm2", f"model.path={smollm2}", f"dataset.path={loku_data / 'tofu'}",
        "dataset.forget_split=forget05", "dataset.authors=21", "evaluation.rows=10",
        "evaluation.max_tokens=80", "evaluation.abilities=[]", "reference.source=none",
        "model.finetuning.epochs=1", "model.finetuning.warmup_epochs=0.1",
        "model.finetuning.learning_rate=5e-4", "model.finetuning.batch_size=8",
        "target.min_known=0.25", "training.batch_size=10", "training.micro_batch_size=10",
        f"output_dir={tmp_path / 'out'}", f"cache_dir={tmp_path / 'cache'}",
    ]  # fmt: skip
    folder = run(compose_config(overrides))
    record = results.read(folder)
    target, unlearned = (record.models[name].metrics for name in ("target", "unlearned"))
    assert unlearned["forget_prob"] < 0.5 * target["forget_prob"]
    assert unlearned["retain_prob"] > 0.7 * target["retain_prob"]
