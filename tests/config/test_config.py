"""Every yaml composes, validates and binds; every kind of mistake is named, all at once."""

import inspect
import shlex
from pathlib import Path

import pytest

from loku_exp.config import components
from loku_exp.config.command_line import check_asked_of_hydra, for_hydra, read_command_line
from loku_exp.config.compose import compose_attacks, compose_config, rehearse
from loku_exp.config.groups import conf_dir
from loku_exp.config.rules import parse
from loku_exp.config.schema import Config
from loku_exp.errors import ConfigError
from loku_exp.runtime.cache import digest
from tests.helpers import tdec_folder

GROUPS = {
    folder.name: sorted(path.stem for path in folder.glob("*.yaml"))
    for folder in conf_dir().iterdir()
    if folder.is_dir() and folder.name != "hydra"
}
REQUIRED = {  # what a user must add to an option for it to run
    "model=hf": ["dataset=toy_tofu", "model.path=owner/name", "reference.source=none"],
    "init=none": ["lora=none"],
    "target=run": ["target.run=."],
}
NEEDS_TDEC = ("model=gpt_neo", "dataset=tdec", "experiment=tdec")


@pytest.fixture(scope="module")
def required(tmp_path_factory):
    """What must stand beside an option."""
    folder = tdec_folder(tmp_path_factory.mktemp("tdec"))

    def of(option: str) -> list[str]:
        tdec = [f"dataset.path={folder}"] if option.startswith(NEEDS_TDEC) else []
        if option in ("dataset=texts", "dataset=qa"):
            tdec = [
                f"dataset.{name}={folder}/forget_sets/lm_extraction_2_0.csv"
                for name in ("forget", "retain")
            ]
        return [option, *REQUIRED.get(option, []), *tdec]

    return of


OPTIONS = [
    f"{group}={name}" for group, names in GROUPS.items() for name in names if name != "common"
]


def test_what_all_evaluations_have_is_none_by_itself():
    with pytest.raises(ConfigError, match=r"evaluation\._target_: not set"):
        compose_config(["evaluation=common"])


@pytest.mark.parametrize("option", OPTIONS)
def test_every_yaml_composes_validates_and_binds(option, required):
    config = compose_config(required(option))
    parts = [config.method, config.loss, config.init, config.dataset, config.evaluation]
    parts += [config.regulariser]
    for component in [*parts, *config.attacks.values()]:
        if component is not None:
            function = component.chosen().resolve()
            inputs = dict.fromkeys(component.inputs)
            inspect.signature(function).bind(**inputs, **component.knobs)
            read = components.read_signature(component.target).knobs
            assert not [knob.name for knob in read if knob.annotation is None]  # none unchecked


@pytest.mark.parametrize("option", OPTIONS)
def test_every_yaml_opens_with_its_own_command(option):
    group, name = option.split("=")
    comments = [
        line
        for line in (conf_dir() / group / f"{name}.yaml").read_text().splitlines()
        if line.startswith("#")
    ]
    assert len(comments) >= 1
    if name != "none" and group != "pairing":
        assert any("python -m loku_exp" in line for line in comments), option


@pytest.mark.parametrize(
    "group", ["method", "loss", "regulariser", "init", "dataset", "evaluation"]
)
def test_signatures_read_from_source_are_the_functions_own(group, required):
    for name in GROUPS[group]:
        if name == "common":  # what all evaluations have is none by itself
            continue
        component = getattr(compose_config(required(f"{group}={name}")), group)
        if component is None:
            continue
        own = inspect.signature(component.chosen().resolve()).parameters.values()
        read = components.read_signature(component.target)
        assert read.inputs == tuple(p.name for p in own if p.kind == p.POSITIONAL_OR_KEYWORD)
        assert [(k.name, k.required) for k in read.knobs] == [
            (p.name, p.default is p.empty) for p in own if p.kind == p.KEYWORD_ONLY
        ]


def test_phi_brings_its_dataset_recipe_and_suite():
    config = compose_config(["model=phi", "loss=ihl", "init=fila"])
    assert config.dataset.label == "tofu"
    assert config.training.recipe == "tofu"
    assert config.training.learning_rate == 2e-4
    assert (config.training.batch_size, config.training.warmup_epochs) == (32, 1)
    assert config.evaluation.knobs["rows"] == 300
    assert config.target.path == "locuslab/tofu_ft_phi-1.5"
    assert (config.lora.alpha, config.lora.dropout) == (16, 0)


def test_llama_has_its_own_learning_rate_and_target():
    config = compose_config(["model=llama2", "lora.rank=32"])
    assert config.training.learning_rate == 1e-4
    assert config.model.path == "NousResearch/Llama-2-7b-chat-hf"
    assert config.target.path == "locuslab/tofu_ft_llama2-7b"
    assert config.lora.alpha == 64


def test_the_command_line_wins_over_what_a_model_brings():
    config = compose_config(["model=phi", "dataset=toy_tofu"])
    assert config.dataset.label == "toy_tofu"
    assert config.training.recipe == "toy_tofu"
    assert compose_config(["dataset=toy_tofu", "training=tofu"]).training.recipe == "tofu"


@pytest.mark.parametrize(
    "way_out", ["reference.source=none", "target.path=null", "target.path=c/d"]
)
def test_a_model_that_is_the_target_needs_another_reference(way_out):
    compose_config(["model=hf", "dataset=toy_tofu", "model.path=a/b", way_out])


def test_lora_none_takes_the_init_with_it():
    config = compose_config(["lora=none"])
    assert config.init is None
    assert config.lora.kind == "full"


def test_one_key_has_one_value():
    """What is said of the learning rate is what is trained with, adapter or not."""
    for lora in ("lora", "none"):
        config = compose_config([f"lora={lora}", "training.learning_rate=1e-9"])
        assert config.training.learning_rate == 1e-9
    assert compose_config(["lora=none"]).training.learning_rate == 5e-4


def test_what_the_page_of_deviations_says_of_settings_is_so():
    page = (conf_dir().parent / "docs/deviations.md").read_text()
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in page.splitlines()}
    phi = compose_config(["model=phi"])
    assert phi.training.max_grad_norm is None
    assert phi.model.finetuning.max_grad_norm is None
    assert "`gradient_clipping`" in rows["clipping"]
    assert (phi.seed, phi.target.seed, phi.reference.seed) == (0, 0, 0)
    assert "| 42 | 0 (`seed`, `target.seed`, `reference.seed`)" in rows["seed"]
    assert phi.model.attention == "sdpa"
    assert "| flash attention | `sdpa`" in rows["attention"]
    assert phi.target.path == "locuslab/tofu_ft_phi-1.5"
    assert "`locuslab/tofu_ft_phi-1.5`" in rows["target"]
    official = compose_config(["model=phi", "init=fila_official"])
    assert official.init.knobs["fisher_micro_batch"] == 4
    assert "`init.fisher_micro_batch`, 4," in rows["its micro-batch"]
    assert phi.evaluation.report_at is None
    reported = "checkpoints 5 / 30 / 60 of forget01 / 05 / 10 | the last, 6 / 31 / 62;"
    assert reported in rows["which update is reported"]
    assert "retain99, 95, 90" in rows["reference"]
    assert "left padding" in rows["budget of a generation"]


def test_a_users_own_model_is_the_target_on_any_dataset(tmp_path):
    """Models know no datasets: what belongs to a pair stands in a table of its own."""
    mine = tmp_path / "dataset"
    mine.mkdir()
    (mine / "mine.yaml").write_text("defaults: [toy_tofu]\nname: mine\n")
    known = ["dataset=mine", "reference.source=none", "model.path=a/b"]
    assert compose_config(["model=hf", *known], str(tmp_path)).target.path == "a/b"
    assert (
        compose_config(["model=hf", *known, "target.path=null"], str(tmp_path)).target.path is None
    )


def test_what_belongs_to_a_pair_may_be_overridden(required):
    assert compose_config(required("model=gpt_neo_125m")).reference.source == "none"
    override = ["reference.source=train", "target.path=c/d"]
    config = compose_config([*required("model=gpt_neo_125m"), *override])
    assert (config.reference.source, config.target.path) == ("train", "c/d")
    toy = compose_config(["model=toy_neo", "dataset=toy_tdec"])
    assert (toy.reference.source, toy.target.path) == ("train", None)


@pytest.mark.parametrize("group", ["loss=gd", "init=vanilla", "lora.rank=4", "training.epochs=2"])
def test_what_a_method_does_not_take_is_refused(group):
    with pytest.raises(ConfigError) as raised:
        compose_config(["method=prompt_corruption", group])
    assert f"{group}: method=prompt_corruption takes no {group.split('=')[0].split('.')[0]}" in str(
        raised.value
    )


GIVEN = ["model=phi", "target.path=a/b", "reference.source=none"]


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        ([*GIVEN, "target.seed=3"], "target.seed=3: target.path=a/b is given"),
        ([*GIVEN, "reference.seed=3"], "reference.seed=3: no reference is fine-tuned here"),
        ([*GIVEN, "model.finetuning.epochs=3"], "model.finetuning.epochs=3: neither target nor"),
        (["evaluation.data_dir=DIR"], "evaluation.data_dir=DIR: no abilities are asked for"),
        (["evaluation.skip_missing=true"], "evaluation.skip_missing=true: no abilities are asked"),
        (["evaluation.include_path=DIR"], "evaluation.include_path=DIR: no tasks are asked for"),
        (["target=run", "target.run=null"], "target.run=null: target=run starts from a run"),
        (
            ["dataset=toy_tdec", "model.learning_rates.lora=1e-2"],
            "model.learning_rates.lora=1e-2: training.learning_rate=0.003 is given",
        ),
        (["launcher=gpus", "device=cpu"], "device=cpu: launcher=gpus gives each run a GPU"),
        (["launcher=gpus", "device=cuda:1"], "device=cuda:1: launcher=gpus gives each run a GPU"),
    ],
)  # fmt: skip
def test_what_nothing_would_read_is_refused(overrides, key):
    (said,) = (text for text in rehearse(overrides) if text.startswith(key))
    assert said


def test_what_something_reads_is_taken():
    for overrides in (
        [*GIVEN[:2], "model.path=c/d", "reference.source=train", "reference.seed=3"],
        [*GIVEN[:2], "model.path=c/d", "reference.source=train", "model.finetuning.epochs=3"],
        ["model.weights=random", "target.seed=3", "target.path=a/b", "reference.source=none"],
        ["evaluation.abilities=[local]", "evaluation.data_dir=DIR", "evaluation.skip_missing=true"],
        [
            "evaluation.data_dir=null",
            "evaluation.skip_missing=false",
            "evaluation.include_path=null",
        ],
        ["model.learning_rates.lora=1e-2"],
        ["dataset=toy_tdec", "model.learning_rates.lora=1e-2", "attacks=[relearn]"],
        ["launcher=gpus", "device=cuda"],
        ["tracking=wandb", "++tracking.mode=offline"],
        ["launcher=slurm", "+launcher.parameters.slurm_nodes=1"],
    ):
        assert rehearse(overrides) == []


def test_a_users_yaml_that_would_be_hidden_is_refused(tmp_path):
    (tmp_path / "loss").mkdir()
    (tmp_path / "loss" / "ihl.yaml").write_text("_target_: mine.loss\n")
    with pytest.raises(ConfigError, match=r"would be hidden by .*conf/loss/ihl.yaml.*my_ihl.yaml"):
        compose_config([], str(tmp_path))


@pytest.mark.parametrize("content", ["a: [1", "a: b: c", "\t- x"])
def test_a_broken_yaml_of_the_user_is_named(tmp_path, content):
    (tmp_path / "loss").mkdir()
    (tmp_path / "loss" / "mine.yaml").write_text(content)
    with pytest.raises(ConfigError, match=r"mine.yaml cannot be read as yaml"):
        compose_config([], str(tmp_path))


@pytest.mark.parametrize("content", ["- 1\n", "text\n"])
def test_a_yaml_without_keys_is_told_apart(tmp_path, content):
    (tmp_path / "loss").mkdir()
    (tmp_path / "loss" / "mine.yaml").write_text(content)
    with pytest.raises(ConfigError) as error:
        compose_config(["loss=mine"], str(tmp_path))
    assert "Component" not in str(error.value)


def test_a_folder_of_yaml_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"--config-dir .*absent: no such folder"):
        compose_config([], str(tmp_path / "absent"))


@pytest.mark.parametrize(
    "name", ["a [b]", "a,b", "it's", 'a"b', "a\\b", 'c\\"d', "e\\", "(x", "{y}", "k=v#1", "ü: ~"]
)
def test_a_folder_of_yaml_may_have_any_name(tmp_path, name):
    (tmp_path / name / "loss").mkdir(parents=True)
    recipe = (conf_dir() / "loss/gd.yaml").read_text()
    (tmp_path / name / "loss/mine.yaml").write_text(recipe)
    config = compose_config(["loss=mine"], str(tmp_path / name))
    assert config.loss.target == compose_config(["loss=gd"]).loss.target


@pytest.mark.parametrize("value", ["a=b", "a#b", "it's", 'a"b', 'a b\\"c', "a=\\", "{", "[b]x[/b]"])
def test_a_value_quoted_as_is_said_is_read_as_it_is(value):
    (problem,) = rehearse([f"output_dir={value}"])
    (typed,) = shlex.split(problem.partition("write it quoted: ")[2])
    assert compose_config([typed]).output_dir == value


def test_attacks_are_chosen_by_name_and_have_keys():
    config = compose_config(["attacks=[relearn]", "attacks.relearn.steps=3"])
    assert config.attacks["relearn"].knobs["steps"] == 3
    assert compose_config([]).attacks == {}


MISTAKES = [
    (["lora.rnak=4"], "lora.rnak: no such key; did you mean 'lora.rank'?"),
    (["model=phii"], "model=phii: no such model; choose one of "),
    (["experiment=quikc"], "did you mean 'quick'?"),
    (["+typo=1"], "typo: no such key"),
    (["+lora.new=3"], "lora.new: no such key"),
    (["model.dtype=float16"], "model.dtype=float16: small gradients, and IHL's get small, are 0 in it"),
    (["dataset=toy_tdec", "lora.base=nf4", "training.stop={n: 3, el: null, ma: null}"],
     "lora.base=nf4: training.stop would be checked on the rounded base"),
    (["dataset=toy_tdec", "training.epochs=0.5"],
     "training.epochs=0.5: training.stop is asked at the end of each epoch"),
    (["tracking=tensorboard", "+tracking.mode=offline"],
     "tracking.mode: no such key here; it belongs to tracking=wandb"),
    (["launcher=gpus", "++launcher.jobs=3"],
     "launcher.jobs: no such key here; it belongs to launcher=processes | launcher=slurm"),
    (["tracking.project=x"], "no such key here; it belongs to tracking=trackio | tracking=wandb"),
    (["loss=gd", "loss.beta1=1"], "loss.beta1: no such key here; it belongs to loss=satimp"),
    (["attacks.int4.bits=3"], "attacks.int4.bits: no such key here; it belongs to attacks=[int4]"),
    (["loss.retain_wieght=1"], "loss.retain_wieght: no such key; did you mean 'loss.retain_weight'?"),
    (["+loss.temperature=1"], "loss.temperature: loku_exp.losses.builtin.ihl has no such knob"),
    (["+init.epsilom=1"], "has no such knob; did you mean 'epsilon'?"),
    (["loss.retain_weight=abc"], "loss.retain_weight='abc': should be a number"),
    (["init.epsilon=-1"], "init.epsilon=-1: should be greater than 0"),
    (["init.svd=fast"], "init.svd='fast': should be 'randomized' or 'exact'"),
    (["init=rila", "init.beta=7"], "init.beta=7: should be less than 1"),
    (["attacks=[int4]", "attacks.int4.levels=nf3"], "levels='nf3': should be 'uniform' or 'nf4'"),
    (["evaluation.rows=0"], "evaluation.rows=0: should be greater than or equal to 1"),
    (["lora.rank=0"], "lora.rank=0: should be greater than or equal to 1"),
    (["target.path="], "target.path=: should not be empty"),
    (["lora.dropout=1"], "lora.dropout=1: should be less than 1"),
    (["lora.rank=four"], "lora.rank=four: should be a whole number"),
    (["training.epochs=-1"], "training.epochs=-1: should be greater than 0"),
    (["lora.rank=4,8"], "lora.rank=4,8: several values make a sweep; add -m (--multirun)"),
    (["lora.targets=qkv"], "lora.targets=qkv: toy_neo has all, qv, qkvo, ffn, qvffn; did you mean"),
    (["lora=none", "init=fila"], "lora=none has none; set init=none"),
    (["init=none"], "use init=vanilla"),
    (["lora=none", "lora.rank=4"], "lora.rank"),
    (["training.micro_batch_size=3"], "must divide training.batch_size=16"),
    (["loss._target_=nowhere.loss"], "cannot find module 'nowhere'"),
    (["loss._target_=loku_exp.losses.builtin.ihlo"], "no function 'ihlo'; did you mean 'ihl'?"),
    (["reference.source=log"], "reference.source=log needs reference.path"),
    (["reference.path=x"], "reference.path=x is not used with reference.source=train"),
    (["model=hf"], "dataset: not chosen; add dataset=qa | tdec | texts | tofu | toy_tdec | toy_tofu"),
    (["model=hf", "dataset=toy_tofu"], "model.path is not set"),
    (["model=phi", "dataset.retain_split=retain99"], "dataset.retain_split: no such key"),
    (["model=phi", "dataset.authors=0"], "dataset.authors=0: should be greater than or equal to 1"),
    (
        ["model=phi", "target.path=null", "reference.path=null", "dataset.authors=21"],
        "dataset.authors=21: 22 to 200 of the 200 authors",
    ),
    (["model=phi", "dataset.authors=40"], "knows all of the dataset, and dataset.authors=40 is a part"),
    (["model=phi", "dataset.path=./nowhere"], "dataset.path=./nowhere: no such folder"),
    (["model=gpt_neo_125m"], "dataset.path=data/tdec: no such folder. TDEC is not on the hub. Put"),
    (["training.batch_size=all"], "training.batch_size=all needs training.reduction=update"),
    (["training.retain_batch_size=4"], "training.retain_batch_size needs training.reduction=update"),
    (["dataset=toy_tdec", "training.stop.n=0"], "training.stop.n=0: should be greater than or equal"),
    (["dataset=toy_tdec", "evaluation.n=[]"], "evaluation.n"),
    (["dataset=toy_tdec", "evaluation.limit=0"], "evaluation.limit=0: should be greater than or"),
    (["dataset.num_forget=31"], "must be at most half of dataset.num_authors=60"),
    (["seed=[1"], "seed=[1"),
    (["model=hf", "dataset=toy_tofu", "model.path=a/b"], "from a model that knows the forget set"),
    (
        ["model=phi", "reference.source=log", "reference.path=x", "evaluation.truth_ratio=arithmetic"],
        "set evaluation.truth_ratio=geometric",
    ),
]  # fmt: skip


def test_a_value_that_cannot_be_read_is_not_called_missing_too():
    first, second = rehearse(["dataset=texts", "dataset.retain=b.txt", "dataset.forget=~/a b.txt"])
    assert first.startswith("dataset.forget=~/a b.txt: its value has special characters")
    assert second == "dataset.retain=b.txt: no such file"


@pytest.mark.parametrize(("overrides", "said"), MISTAKES)
def test_mistake_is_named(overrides, said):
    problems = rehearse(overrides)
    assert any(said in problem for problem in problems), problems


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            "forget, beta=0.1",
            "nothing is given for its argument 'beta'; a loss may take forget and retain and further "
            "batches of the dataset, and knobs must be keyword-only",
        ),
        ("retain", "a loss must take 'forget'"),
    ],
)
def test_a_loss_of_ones_own_asks_for_what_there_is(tmp_path, monkeypatch, arguments, said):
    monkeypatch.syspath_prepend(tmp_path)
    module = f"own_{abs(hash(arguments))}"
    (tmp_path / f"{module}.py").write_text(f"def loss({arguments}):\n    return None\n")
    problems = rehearse(
        [f"loss._target_={module}.loss", "~loss.retain_weight", "~loss.retain_term"]
    )
    assert any(said in problem for problem in problems), problems


def test_a_loss_of_ones_own_may_ask_for_further_batches(tmp_path, monkeypatch):
    """Which ones there are, the data say."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "of_three.py").write_text("def loss(forget, idk, retain):\n    return None\n")
    assert (
        rehearse(["loss._target_=of_three.loss", "~loss.retain_weight", "~loss.retain_term"]) == []
    )


def test_all_mistakes_come_at_once():
    overrides = [
        "lora.rnak=4",
        "model=phii",
        "+typo=1",
        "training.epochs=-1",
        "loss.retain_weight=x",
    ]
    assert len(rehearse(overrides)) == len(overrides)


def test_an_attack_that_is_added_later_reads_the_runs_own_settings(tmp_path):
    """It read the default's: 16 rows, whatever the run's batch size."""
    (tmp_path / "attacks").mkdir()
    text = "mine:\n  _target_: loku_exp.attacks.relearn.relearn\n  rows: ${training.batch_size}\n"
    rest = "  steps: 1\n  learning_rate: ${model.learning_rates.full}\n  batch_size: 2\n  rank: 2\n"
    (tmp_path / "attacks/mine.yaml").write_text(f"{text}{rest}  choose: first\n")
    size = ["training.batch_size=4", "training.micro_batch_size=4", "model.learning_rates.full=0.5"]
    at_once = compose_config([*size, "attacks=[mine]"], str(tmp_path))
    run = compose_config(size).model_dump(mode="json", by_alias=True)
    later = compose_attacks(["mine"], ["attacks.mine.rank=3"], run, str(tmp_path))["mine"]
    assert later == at_once.attacks["mine"].model_dump(by_alias=True) | {"rank": 3}
    assert (later["rows"], later["learning_rate"]) == (4, 0.5)


def test_typo_inside_a_users_yaml_is_an_error(tmp_path):
    (tmp_path / "loss").mkdir()
    text = "_target_: loku_exp.losses.builtin.gd\nretain_weigth: 1.0\n"
    (tmp_path / "loss/mine.yaml").write_text(text)
    (problem,) = rehearse(["loss=mine"], str(tmp_path))
    assert "loss.retain_weigth" in problem
    assert "did you mean 'retain_weight'?" in problem
    (tmp_path / "training").mkdir()
    recipe = (conf_dir() / "training/toy_tofu.yaml").read_text()
    (tmp_path / "training/mine.yaml").write_text(recipe + "epoch: 3\n")
    (problem,) = rehearse(["training=mine"], str(tmp_path))
    assert problem == "training.epoch: no such key; did you mean 'epochs'?"


def test_parse_lists_problems_of_schema_and_components_together():
    container = compose_config([]).model_dump(mode="json", by_alias=True)
    container["lora"]["rank"] = 0
    container["loss"]["retain_weight"] = "much"
    with pytest.raises(ConfigError) as raised:
        parse(container)
    assert len(raised.value.problems) == 2


def test_a_key_given_twice_in_a_sweep_is_said(caplog):
    jobs = read_command_line(["-m", "lora.rank=4,8", "lora.rank=8"]).jobs()
    assert len(jobs) == 1
    assert "lora.rank is given more than once; the last of them counts" in caplog.text
    caplog.clear()
    read_command_line(["seed=0", "loss=gd", "++seed=1"]).jobs()
    assert "seed is given more than once; the last of them counts" in caplog.text


@pytest.mark.parametrize(
    "words", [["-m", "--cfg", "job"], ["--cfg=job", "--info", "all"], ["-sc", "install=bash", "-m"]]
)
def test_two_questions_at_once_are_refused(words):
    with pytest.raises(ConfigError, match=r"one of these at a time; leave out all but one"):
        read_command_line(["loss=gd", *words])
    assert read_command_line(["loss=gd", "--cfg", "job"]) is None


def test_a_sweep_is_split_and_checked_job_by_job():
    line = read_command_line(["lora.rank=4,8", "-m", "loss=gd,ihl"])
    assert line.jobs() == [
        [f"lora.rank={rank}", f"loss={loss}"] for rank in (4, 8) for loss in ("gd", "ihl")
    ]


def test_what_hydra_answers_is_left_to_it():
    line = read_command_line(["seed=1", "--config-dir", "mine"])
    assert (line.jobs(), line.config_dir) == ([["seed=1"]], "mine")
    assert read_command_line(["--help"]) is None
    assert read_command_line(["--cfg", "job", "seed=1"]) is None
    words = ["loss=gd", "--cfg", "job", "--debug", "+seed=1", "-p", "lora", "~loss.retain_term"]
    own = ["--cfg", "job", "-p", "lora", "loss=gd", "+seed=1", "~loss.retain_term"]
    assert for_hydra(words) == own


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--cfg", "job", "me"], "me: not key=value"),
        (["--help", "me"], "me: not key=value"),
        (["--cfg", "job", "model=phy"], "did you mean 'phi'"),
        (
            ["--cfg=job", "lora.rnk=3", "lora=lora"],
            "lora.rnk: no such key; did you mean 'lora.rank'",
        ),
        (["-c", "job", "loss=my_npo"], "loss=my_npo: no such loss"),
        (["-c", "job", "-cd", "nowhere"], "--config-dir nowhere"),
        (
            ["training.lr=3", "--help"],
            "training.lr: no such key; training has recipe, epochs, batch",
        ),
    ],
)
def test_what_hydra_is_asked_beside_mistakes_is_refused_in_our_words(words, said):
    with pytest.raises(ConfigError) as raised:
        check_asked_of_hydra(words)
    assert said in str(raised.value)


@pytest.mark.parametrize(
    "words",
    [
        "--help",
        "--info",
        "--info all",
        "-c job lora.rank=0",
        "-sc install=bash",
        "--cfg job -p loss",
    ],
)
def test_what_hydra_is_asked_without_mistakes_is_left_to_it(words):
    check_asked_of_hydra(words.split())


def test_no_python_file_asks_for_a_models_name():
    package = Path(components.__file__).parents[1]
    names = [name for name in GROUPS["model"] if name != "hf"]
    for file in package.rglob("*.py"):
        text = file.read_text()
        assert not any(f'"{name}"' in text for name in names), file


def test_equal_numbers_written_differently_have_one_identity():
    one = compose_config(["training.learning_rate=1e-4"]).model_dump(mode="json")
    two = compose_config(["training.learning_rate=0.0001"]).model_dump(mode="json")
    assert digest(one) == digest(two)
    assert digest(one) != digest(compose_config([]).model_dump(mode="json"))
    for group, whole, fraction in (
        ("loss=npo", "loss.beta=1", "loss.beta=1.0"),
        ("method=prompt_corruption", "method.strength=5", "method.strength=5.0"),
        ("attacks=[leak]", "attacks.leak.temperature=1", "attacks.leak.temperature=1.0"),
    ):
        one, two = (compose_config([group, typed]).model_dump_json() for typed in (whole, fraction))
        assert one == two
    assert type(compose_config(["init.num_retain=8"]).init.knobs["num_retain"]) is int


def test_config_is_frozen():
    config: Config = compose_config([])
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 3


def test_what_hydra_would_do_and_is_not_done_here_is_refused():
    assert read_command_line(["--run", "loss=gd"]).overrides == ["loss=gd"]
    for option in ("--config-name=config", "-p"):
        with pytest.raises(ConfigError, match="not used here; yaml of your own: --config-dir DIR"):
            read_command_line([option, "x", "loss=gd"])
    assert read_command_line(["--cfg", "job", "--package", "loss"]) is None


def test_a_preset_that_spans_a_sweep_is_one_run_without_m_and_says_so(caplog):
    line = read_command_line(["experiment=toy_grid"])
    assert line.jobs() == [["experiment=toy_grid"]]
    assert "experiment=toy_grid spans a sweep; without -m it is one run" in caplog.text
    caplog.clear()
    read_command_line(["experiment=quick"]).jobs()
    assert caplog.text == ""
