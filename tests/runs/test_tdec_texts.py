"""Whole TDEC runs on texts from files: GPT-Neo's shape, every preset, the real texts, mistakes."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from transformers import AutoTokenizer, GPTNeoConfig, GPTNeoForCausalLM

from loku_exp.config.command_line import CommandLine
from loku_exp.config.compose import rehearse
from loku_exp.config.groups import conf_dir
from loku_exp.errors import ConfigError, DataError, UserError
from loku_exp.evaluation.ability.dialogue import DIALOGUES
from loku_exp.evaluation.ability.harness_tasks import STOCK_FILES
from loku_exp.models.tokenizer import train_tokenizer
from loku_exp.results import files as results
from loku_exp.results import table
from tests.data.tdec_folder import words, write_arrays, write_csv, write_folder, write_set
from tests.models.test_real_models import hub_folder
from tests.runs import running
from tests.runs.running import examples

NEVER_FORGOTTEN = ["training.stop.el=1e-9", "training.stop.ma=1e-9"]


def start(place: Path, *overrides: str) -> Path:
    """Run in a place with a cache of its own."""
    return running.start(place / "out", place / "cache", base=list(overrides))


# -- invented texts on a shrunken GPT-Neo --------------------------------------------------------

SHRUNK = [
    "dataset.length=32",
    "dataset.siblings=4",
    "dataset.evaluated=4",
    "dataset.unseen=4",
    "evaluation.abilities=[]",
    "evaluation.limit=4",
    "target.min_known=0",
    "training.epochs=2",
    "training.retain_batch_size=4",
    *NEVER_FORGOTTEN,
]
DOCS = ([1, 3, 5, 7], [9, 11, 13, 15], [17, 19, 21, 23])
TOKENS = 300


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """``tdec``: invented texts in forget sets 32_0 to 32_2; ``base``: a GPT-Neo as the hub has it."""
    place = tmp_path_factory.mktemp("world")
    folder = write_folder(place / "tdec")
    for number, docs in enumerate(DOCS):
        write_set(folder, 32, number, docs)
        further = [doc + 1 for doc in docs]
        write_set(folder, 128, number, [*docs, *further, 26 + 2 * number, 27 + 2 * number])
    config = GPTNeoConfig(
        vocab_size=TOKENS, hidden_size=64, num_layers=2, num_heads=2, window_size=16,
        attention_types=[[["global", "local"], 1]], max_position_embeddings=256,
        attention_dropout=0, embed_dropout=0, resid_dropout=0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    GPTNeoForCausalLM(config).save_pretrained(place / "base")
    texts = [words(300, seed) for seed in range(3)]
    train_tokenizer(texts, TOKENS).save_pretrained(place / "base")
    return place


def shrunk(world: Path, *overrides: str) -> list[str]:
    paths = [f"dataset.path={world / 'tdec'}", f"model.path={world / 'base'}"]
    return [*paths, *SHRUNK, *overrides]


PRESETS = {"tdec_compute": 18, "tdec_ranks": 144, "tdec_layers": 60, "tdec_from_scratch": 1}
FROM_SCRATCH = [
    "model.architecture.hidden_size=32",
    "model.architecture.num_layers=2",
    "model.architecture.attention_types=[[[global,local],1]]",
    f"model.vocabulary={TOKENS}",
    "model.finetuning.epochs=1",
    "dataset.repeats=1",
    "training.batch_size=4",
    "training.micro_batch_size=4",
]


def sweep(preset: str) -> list[list[str]]:
    """All jobs of ``-m experiment=preset``."""
    content = yaml.safe_load((conf_dir() / f"experiment/{preset}.yaml").read_text())
    params = content.get("hydra", {"sweeper": {"params": {}}})["sweeper"]["params"]
    jobs = CommandLine([f"{k}={v}" for k, v in params.items()], True, None).jobs()
    return [[f"experiment={preset}", *job] for job in jobs]


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
def test_all_jobs_of_a_preset_compose(world, preset):
    jobs = sweep(preset)
    assert len(jobs) == len({tuple(job) for job in jobs}) == PRESETS[preset]
    methods = [[key for key in job if "forget_set" not in key] for job in jobs]
    for job, rest in zip(jobs, methods, strict=True):
        if rest in methods[: jobs.index(job)] and rest != methods[0]:
            continue  # forget sets differ in nothing but their number
        assert rehearse([*job, f"dataset.path={world / 'tdec'}"]) == [], job


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "job", "expected"),
    [
        ("tdec_compute", -1, {"loss": "ihl", "init": "fila", "lora.rank": 16}),
        ("tdec_compute", 0, {"loss": "ga", "init": "vanilla", "lora.rank": 16}),
        ("tdec_ranks", -1, {"model": "gpt_neo_2_7b", "loss": "ihl", "init": "fila", "lora.rank": 32}),
        ("tdec_layers", -2, {"loss": "ihl", "init": "fila", "lora.targets": "qvffn", "lora.rank": 32}),
        ("tdec_from_scratch", 0, {"model": "scratch_neo", "loss": "ihl", "init": "fila"}),
    ],
)  # fmt: skip
def test_one_job_of_each_preset_runs(world, preset, job, expected):
    overrides = sweep(preset)[job]
    scratch = preset == "tdec_from_scratch"
    paths = shrunk(world)
    if scratch:
        paths = [key for key in paths if not key.startswith("model.path")] + FROM_SCRATCH
    folder = start(world, *overrides, *paths)
    record = results.read(folder)
    assert expected.items() <= record.run.choices.items()
    assert record.protocol["updates"] == 2
    assert record.protocol["rows"].items() >= {"forget": 4, "sibling": 4, "unseen": 4}.items()
    number = next((int(key[-1]) for key in overrides if "forget_set" in key), 0)
    assert record.protocol["forget_split"] == f"32_{number}"
    assert [row["row"] for row in examples(folder, "target", "forget")] == DOCS[number]
    assert [point.step for point in record.curve] == [0, 1, 2]
    if preset == "tdec_compute":  # compared by compute: every epoch has every metric
        assert record.curve[1].metrics.keys() >= record.curve[0].metrics.keys() - {
            "pile_ppl", "wikitext_in_domain_ppl"
        }  # fmt: skip
        assert record.cost["flops"]["training"] > 0
    assert {"pile_ppl", "wikitext_in_domain_ppl"} <= record.models["unlearned"].metrics.keys()
    assert ("reference" in record.models) is scratch
    if scratch:  # the texts of the set of 128 that are not evaluated, and the other sets of 128
        assert record.protocol["retain_corpus"] == "wikitext + 2 memorised texts"
        assert record.protocol["unseen_source"] == "forget_sets"
    assert record.run.label == ("small model trained FROM SCRATCH" if scratch else "")
    assert (folder / "adapter/adapter_model.safetensors").is_file()


def test_full_fine_tuning_beside_the_compute_preset(world):
    wanted = ["model=gpt_neo_125m", "lora=none", "loss=gd", "evaluation.curve=full"]
    record = results.read(start(world, *wanted, *shrunk(world)))
    assert record.init is None
    assert (record.cost["flops"]["fisher"], record.cost["flops"]["low_rank"]) == (0, 0)
    assert max(record.training["learning_rate"]) <= 5e-5
    assert record.curve[1].metrics.keys() >= {"forget_el10", "sibling_el10"}


@pytest.mark.slow
def test_a_part_of_a_preset_by_the_command_line(world, tmp_path):
    part = ["model=gpt_neo_125m", "dataset.forget_set=0", "loss=ihl", "init=vanilla"]
    command = [sys.executable, "-m", "loku_exp", "-m", "experiment=tdec_ranks", *part]
    command += ["lora.rank=2,4", *shrunk(world, "evaluation.curve=none")]
    command += [f"output_dir={tmp_path}", f"cache_dir={world / 'cache'}"]
    subprocess.run(command, env=dict(os.environ), check=True, capture_output=True)
    folders = [folder for folder in tmp_path.iterdir() if folder.is_dir()]
    assert sorted(results.read(folder).run.choices["lora.rank"] for folder in folders) == [2, 4]


@pytest.fixture
def seen(monkeypatch):
    """Every sequence of ids a GPT-Neo reads, as tuples without their padding's length."""
    read: list[tuple[int, ...]] = []
    forward = GPTNeoForCausalLM.forward

    def spy(self, input_ids=None, *args, **rest):
        if input_ids is not None:
            read.extend(map(tuple, input_ids.tolist()))
        return forward(self, input_ids, *args, **rest)

    monkeypatch.setattr(GPTNeoForCausalLM, "forward", spy)
    return read


def test_forget_sets_share_what_does_not_depend_on_them(world, tmp_path, seen):
    tokenizer = AutoTokenizer.from_pretrained(world / "base")
    only = [key for key in shrunk(world) if not key.startswith("training.")]
    only += ["model=gpt_neo_125m", "unlearn=false"]

    def evaluated(number):
        seen.clear()
        return results.read(start(tmp_path, *only, f"dataset.forget_set={number}"))

    def reads(text):
        ids = tuple(tokenizer(text).input_ids[:32])
        return any(row[:32] == ids for row in seen)

    pile = [words(40, 2000 + i) for i in range(12)]
    first = evaluated(0)
    assert sum(map(reads, pile)) >= 4
    assert reads(f'"{words(30, 1)}",\n{words(30, 1001)}')
    second = evaluated(1)
    assert not any(map(reads, pile))
    assert reads(f'"{words(30, 9)}",\n{words(30, 1009)}')
    assert not reads(f'"{words(30, 1)}",\n{words(30, 1001)}')
    ours, theirs = (record.models["target"].metrics for record in (first, second))
    shared = [name for name in ours if name.startswith(("unseen_", "pile_", "wikitext_"))]
    assert len(shared) == 6 + 1
    assert {name: ours[name] for name in shared} == {name: theirs[name] for name in shared}
    assert ours["forget_loss"] != theirs["forget_loss"]


# -- the real texts on GPT-Neo's shape and tokens ------------------------------------------------

FEW = [
    "model=gpt_neo_125m",
    "dataset.forget_size=1",
    "dataset.siblings=1",
    "dataset.unseen=1",
    "dataset.evaluated=1",
    "evaluation.abilities=[]",
    "evaluation.limit=2",
    "evaluation.n=[198]",  # few prefixes are long enough for it, so little is decoded
    "evaluation.curve=none",
    "training.stop.n=198",
    *NEVER_FORGOTTEN,
    "training.epochs=1",
    "training.retain_batch_size=4",
    "target.min_known=0",
    "lora.rank=4",
]


@pytest.fixture(scope="module")
def real(loku_data, tmp_path_factory):
    """Overrides for the real folder, and a shrunken GPT-Neo with GPT-2's tokenizer."""
    base = hub_folder(tmp_path_factory.mktemp("real") / "base", "gpt_neo_125m", loku_data)
    return [*FEW, f"dataset.path={loku_data / 'tdec'}", f"model.path={base}"], base


@pytest.fixture(scope="module")
def arrays(loku_data):
    names = ("preprefix", "prefix", "suffix")
    place = loku_data / "tdec/lm_extraction_benchmark"
    return np.concatenate([np.load(place / f"train_{name}.npy") for name in names], axis=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "knobs",
    [
        ["dataset.source=text"],
        ["dataset.source=ids"],
        ["dataset.rows=[7,14999]", "dataset.source=ids"],
    ],
)
def test_real_texts(real, arrays, tmp_path, seen, knobs):
    overrides, _ = real
    folder = start(tmp_path, *overrides, *knobs)
    record = results.read(folder)
    rows = [row["row"] for row in examples(folder, "target", "forget")]
    assert record.models.keys() == {"target", "unlearned"}  # nobody has a reference of GPT-Neo
    assert record.models["target"].weights == "pretrained"
    assert record.run.label == ""
    assert record.protocol["reference"] == "none"
    assert record.protocol["rows"].items() >= {
        "forget": len(rows), "sibling": 1, "retain": 1, "unseen": 1
    }.items()  # fmt: skip
    assert {"pile_ppl", "wikitext_in_domain_ppl"} <= record.models["target"].metrics.keys()
    assert {"forget_exact50", "forget_exact150"} <= record.models["target"].metrics.keys()
    assert record.protocol["limit"] == 2
    assert record.protocol["examples_per_update"] == [len(rows), 4]
    assert record.protocol["updates"] == 1
    if "rows" in knobs[0]:
        assert rows == [7, 14999]
        assert record.protocol["forget_split"] == "2 benchmark rows"
    else:
        assert record.protocol["forget_split"] == "1_0"
    assert record.protocol["source"] == knobs[-1].partition("=")[2]
    if "dataset.source=ids" in knobs:  # what the model reads are the rows, to the last id
        read = {ids for ids in seen if len(ids) == 200}
        assert {tuple(arrays[row].tolist()) for row in rows} <= read


@pytest.mark.slow
def test_target_and_reference_from_a_real_shape(real, tmp_path):
    overrides, _ = real
    train = [
        "target.path=null",
        "reference.source=train",
        "model.finetuning.epochs=0.05",
        "model.finetuning.warmup_epochs=0",
        "model.finetuning.batch_size=4",
        "model.finetuning.learning_rate=1e-3",
        "dataset.retain_share=0.1",
    ]
    folder = start(tmp_path, *overrides, *train)
    record = results.read(folder)
    models = record.models
    assert models["target"].weights == models["reference"].weights == "finetuned_here"
    assert models["target"].metrics != models["reference"].metrics
    assert "the reference has EL_198 " in (folder / "results.md").read_text()


# -- mistakes ------------------------------------------------------------------------------------


def bad_csv(columns, rows):
    def change(folder):
        write_csv(folder / "forget_sets/lm_extraction_32_0.csv", columns, rows)

    return change


def bad_array(name, array):
    return lambda folder: write_arrays(folder, **{name: array})


def without_pile(folder):
    (folder / "validation_data/pile.csv").unlink()


def short_corpus(folder):
    write_csv(folder / "short.csv", ["text"], [[f"t{i}"] for i in range(4)])


COLUMNS = ["doc_id", "corpus", "text"]
MISTAKES = {
    "forget set the folder lacks": (
        None,
        ["dataset.forget_set=7"],
        r"dataset\.forget_set=7 of size 32: .* has 1_0, 4_0, 4_1, 32_0, 32_1, 32_2, 128_0, 128_1, 128_2 "
        r"\(size_number\)\. Or give rows .*dataset\.rows=\[\.\.\.\]",
    ),
    "csv without a column": (
        bad_csv(["doc_id", "text"], [(1, "a")]),
        [],
        r"lm_extraction_32_0\.csv, row 1: lacks corpus; it has doc_id, text",
    ),
    "csv with an empty text": (
        bad_csv(COLUMNS, [(1, "a", "words"), (2, "a", " ")]),
        [],
        r"lm_extraction_32_0\.csv, row 2: 'text' is empty",
    ),
    "shape of an array": (
        bad_array("prefix", np.zeros((40, 51), np.uint16)),
        ["dataset.source=ids"],
        r"train_prefix\.npy is uint16 of shape \(40, 51\), not integers \(rows, 50\)",
    ),
    "rows of the arrays": (
        bad_array("suffix", np.zeros((39, 50), np.uint16)),
        ["dataset.rows=[1,2]"],
        r"different numbers of rows: .*train_prefix\.npy 40, train_suffix\.npy 39",
    ),
    "another tokenizer with ids": (
        None,
        ["dataset.source=ids"],
        r"token ids are GPT-2's, and this model's tokenizer has other .* use dataset\.source=text",
    ),
    "another tokenizer with rows": (
        None,
        ["dataset.rows=[1,2]"],
        r"token ids are GPT-2's, and this model's tokenizer has other .* use dataset\.source=text",
    ),
    "length over the context": (
        None,
        ["dataset.length=257"],
        r"dataset\.length=257 exceeds the model's context of 256 tokens",
    ),
    "retain corpus shorter than a sequence": (
        short_corpus,
        ["dataset.retain={folder}/short.csv"],
        r"retain corpus .* less than one sequence of dataset\.length=32; .*: dataset\.retain=FILE",
    ),
    "no text for thresholds": (
        without_pile,
        [],
        r"lacks validation_data/pile\.csv, which thresholds are measured on",
    ),
    "n of EL longer than the text": (
        None,
        ["evaluation.n=[10,32]"],
        r"evaluation\.n=32: the shortest text of the forget set has 32 tokens",
    ),
    "limit of no documents": (
        None,
        ["evaluation.limit=0"],
        r"evaluation\.limit=0: should be greater than or equal to 1",
    ),
}  # fmt: skip


def refused(world, tmp_path, change, overrides):
    """Start a run over a changed folder; return what is said, after looking that nothing is left."""
    folder = shutil.copytree(world / "tdec", tmp_path / "tdec")
    if change:
        change(folder)
    own = [text.format(folder=folder) for text in overrides]
    arguments = [*shrunk(world), f"dataset.path={folder}"]
    with pytest.raises(UserError) as raised:
        start(tmp_path, "model=gpt_neo_125m", *arguments, *own)
    assert not (tmp_path / "out").exists()
    return str(raised.value), raised.value


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_said_and_leaves_no_folder(world, tmp_path, mistake):
    change, overrides, said = MISTAKES[mistake]
    message, error = refused(world, tmp_path, change, overrides)
    assert isinstance(error, ConfigError | DataError)
    assert re.search(said, message), message
    assert "\n" not in message


NEEDED = {*STOCK_FILES, *DIALOGUES}


def test_missing_ability_data_are_one_error(world, tmp_path):
    message, error = refused(world, tmp_path, None, ["evaluation.abilities=[harness,dialogue]"])
    assert isinstance(error, ConfigError)
    lines = message.splitlines()
    assert len(lines) == len(NEEDED) + 1 == 14
    assert {re.match(r"evaluation: '(\w+)' is missing: ", line)[1] for line in lines[:-1]} == NEEDED
    for way_out in ("evaluation.data_dir=DIR", "evaluation.texts_dir=DIR", "skip_missing=true"):
        assert way_out in lines[-1]


def test_skipped_tasks_are_marked_absent(world, tmp_path):
    skip = [
        "evaluation.abilities=[harness,dialogue]",
        "evaluation.skip_missing=true",
        "training.epochs=1",
    ]
    folder = start(tmp_path, "model=gpt_neo_125m", *shrunk(world, *skip))
    record = results.read(folder)
    assert record.protocol["missing"].keys() == NEEDED
    assert all(record.protocol["missing"].values())
    for model in record.models.values():
        assert not {"reasoning", "dialogue"} & model.metrics.keys()
        assert not any(name.endswith(("_acc", "_f1")) for name in model.metrics)
    names = ", ".join(record.protocol["missing"])
    shown = [
        f"note: absent, their data could not be had: {names}",
        "note: abilities and perplexities are of the first 4 documents each",
    ]
    assert set(shown) <= set(table.notes(record))
    assert all(line in (folder / "results.md").read_text() for line in shown)
