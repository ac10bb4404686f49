"""What a user would get wrong: one line a problem, exit code 1, nothing made, nothing trained."""

import os
import re
import subprocess
import sys

import pytest

from loku_exp.__main__ import main

# Arguments, and what the error must say; `|` parts the problems that must all be named.
SAID = [
    # values that are no values
    ("loss=nan", "loss=nan: no such loss; choose one of"),
    ("loss=1", "loss=1: no such loss"),
    ("model=1.5", "model=1.5: no such model; choose one of"),
    ("init=null", "init=null: no such init"),
    ("loss=", "loss=: no such loss"),
    ("=3", "=3: not key=value"),
    ("lora.rank", "lora.rank: not key=value; write lora.rank=..."),
    ("lora.rank=", "lora.rank=: should be a whole number (for example 1)"),
    ("lora.rank=inf", "lora.rank=inf: should be a finite number"),
    ("lora.rank=1e300", "lora.rank=1e+300: "),
    ("lora.rank=0 dataset.num_forget=999", "lora.rank=0: should be|dataset.num_authors=60"),
    ("lora.rank=0", "lora.rank=0: should be greater than or equal to 1"),
    ("lora.rank=-4", "lora.rank=-4: should be greater than or equal to 1"),
    ("lora.rank=4.5", "lora.rank=4.5: should be a whole number (for example 1)"),
    ("lora.rank=[4,8]", "lora.rank=[4, 8]: should be a whole number (for example 1)"),
    ("lora.rank={a:1}", "lora.rank={'a': 1}: should be a whole number (for example 1)"),
    ("lora.rank=null", "lora.rank is not set"),
    ("lora.dropout=1.5", "lora.dropout=1.5: should be less than 1"),
    ("lora.alpha=x", "lora.alpha=x: should be a whole number (for example 1)"),
    ("seed=true", "seed=True: should be a whole number (for example 1)"),
    ("training.learning_rate=true", "training.learning_rate=True: should be a number (for"),
    ("training.betas=[true,0.9]", "training.betas.0=True: should be a number (for example 0.1)"),
    ("loss.retain_weight=true", "loss.retain_weight=True: should be a number (for example 0.1)"),
    ("dataset.num_forget=true", "dataset.num_forget=True: should be a whole number (for"),
    ("lora={rnak:3}", "lora.rnak: no such key; did you mean 'lora.rank'?"),
    ("model.learning_rates={a:1}", "model.learning_rates.a: no such key"),
    ("training.epochs=inf", "training.epochs=inf: should be a finite number"),
    ("training.epochs=1e300", "training.epochs=1e+300: should be less than or equal to"),
    ("training.epochs=0", "training.epochs=0: should be greater than 0"),
    ("training.learning_rate=nan", "training.learning_rate=nan: should be a finite number"),
    ("training.learning_rate=1e400", "training.learning_rate=inf: should be a finite number"),
    ("training.learning_rate=-1", "training.learning_rate=-1: should be greater than 0"),
    ("training.weight_decay=-1", "training.weight_decay=-1: should be greater than or equal to 0"),
    ("training.betas=[0.9,1.0]", "training.betas.1=1.0: should be less than 1"),
    ("training.betas=[0.9]", "training.betas: item 2 is missing"),
    ("training.betas=[1,2,3]", "training.betas=[1, 2, 3]: should have at most 2 items"),
    ("model.template=x", "model.template=x: should be a section of keys or 'chat'"),
    ("training.betas=0.9", "training.betas=0.9: should be a list (for example [a,b])"),
    (
        "training.batch_size=0",
        "training.batch_size=0: should be greater than or equal to 1 or 'all'",
    ),
    ("training.batch_size=al", "should be a whole number (for example 1) or 'all'"),
    (
        "training.micro_batch_size=3",
        "training.micro_batch_size=3 must divide training.batch_size=16",
    ),
    ("training.schedule=cosine", "training.schedule=cosine: should be 'linear' or 'constant'"),
    (
        "training.snapshot_epochs=[]",
        "training.snapshot_epochs=[]: should be a whole number (for example 1)",
    ),
    ("training.stop=3", "training.stop=3: should be a section of keys"),
    ("training.stop={}", "training.stop.n: not set|training.stop.el: not set"),
    ("training.reduction=sum", "should be 'micro_batch' or 'update'"),
    ("seed=-1", "seed=-1: should be greater than or equal to 0"),
    ("seed=x", "seed=x: should be a whole number (for example 1)"),
    ("seed=1.5", "seed=1.5: should be a whole number (for example 1)"),
    ("seed=99999999999999999999999", "should be less than or equal to 9223372036854775807"),
    ("target.seed=x", "target.seed=x: should be a whole number (for example 1)"),
    ("target.min_known=2", "target.min_known=2: should be less than or equal to 1"),
    ("loss.retain_weight=-1", "loss.retain_weight=-1: should be greater than or equal to 0"),
    ("loss.retain_weight=nan", "loss.retain_weight=nan: should be a finite number"),
    ("loss.retain_weight=inf", "loss.retain_weight=inf: should be a finite number"),
    ("loss.retain_weight=abc", "loss.retain_weight='abc': should be a number (for example 0.1)"),
    ("init.epsilon=0", "init.epsilon=0: should be greater than 0"),
    ("init.svd=fast", "init.svd='fast': should be 'randomized' or 'exact'"),
    ("init.fisher_seed=-3", "init.fisher_seed=-3: should be greater than or equal to 0"),
    ("threads=0", "threads=0: should be greater than or equal to 1"),
    ("threads=1000000", "threads=1000000: should be less than or equal to 1024"),
    ("unlearn=maybe", "unlearn=maybe: should be true or false"),
    ("evaluation.curve=foo", "should be 'reduced', 'brief', 'full' or 'none'"),
    ("evaluation.rows=none", "evaluation.rows='none': should be"),
    ("evaluation.rows=0", "evaluation.rows=0: should be greater than or equal to 1"),
    ("evaluation.limit=0", "evaluation.limit=0: should be greater than or equal to 1"),
    ("evaluation.limit=-1", "evaluation.limit=-1: should be greater than or equal to 1"),
    (
        "evaluation.tasks=arc_easy",
        "evaluation.tasks=arc_easy: should be a list (for example [a,b])",
    ),
    (
        "evaluation.batch_tokens=0",
        "evaluation.batch_tokens=0: should be greater than or equal to 1",
    ),
    ("evaluation.truth_ratio=harmonic", "should be 'geometric' or 'arithmetic'"),
    ("model.dtype=int8", "should be 'auto', 'float32', 'bfloat16' or 'float16'"),
    ("model.attention=nope", "should be 'auto', 'eager', 'sdpa' or 'flash_attention_2'"),
    ("model.vocabulary=0", "model.vocabulary=0: should be greater than or equal to 1"),
    ("model.template.question_start=null", "should be text"),
    ("model.finetuning.epochs=-1", "model.finetuning.epochs=-1: should be greater than 0"),
    ("model.weights=trained", "should be 'pretrained', 'scratch' or 'random'"),
    # names, keys and groups
    ("lora.rnak=4", "lora.rnak: no such key; did you mean 'lora.rank'?"),
    ("+x=1", "x: no such key"),
    ("+lora.new=3", "lora.new: no such key"),
    ("~loss", "loss: not chosen; add loss="),
    ("~lora.rank", "~lora.rank: it cannot be left out; give it another value: lora.rank=..."),
    ("loss={a:1}", "loss.a: no such key"),
    ("loss.retain_wieght=1", "did you mean 'loss.retain_weight'?"),
    ("model.architecture.nope=3", "model.architecture.nope: no such key"),
    ("experiment=nope", "experiment=nope: no such experiment; choose one of"),
    ("tracking=nope", "tracking=nope: no such tracking"),
    ("launcher=nope", "launcher=nope: no such launcher"),
    ("method=nope", "method=nope: no such method; choose one of"),
    ("attacks=[nope]", "attacks=[nope]: no such attacks; choose one of"),
    ("attacks=nope", "attacks=nope: no such attacks"),
    ("loss=ihll", "did you mean 'ihl'?"),
    ("model.name=../../x", "model.name=../../x: should be letters, digits"),
    ("model.name=", "model.name=: should be letters, digits"),
    ("dataset.name=../../../y", "dataset.name=../../../y: should be letters, digits"),
    ("dataset.name=/abs", "dataset.name=/abs: should be letters, digits"),
    ("dataset.name=a/b", "dataset.name=a/b: should be letters, digits"),
    ("model.name=" + "x" * 65, "at most 64, for it names a folder"),
    ("output_dir=", "output_dir=: should not be empty"),
    ("output_dir=null", "output_dir=None: should be text"),
    ("cache_dir=", "cache_dir=: should not be empty"),
    ("output_dir=[/b]", "output_dir=['/b']: should be text"),
    (
        "output_dir=a=b",
        "output_dir=a=b: its value has special characters; write it quoted: 'output_dir=\"a=b\"'",
    ),
    ("output_dir=a#b", "write it quoted: 'output_dir=\"a#b\"'"),
    ("output_dir=it's", """write it quoted: 'output_dir="it'"'"'s"'"""),
    (
        "output_dir=${hydra:runtime.cwd}",
        "output_dir=${hydra:runtime.cwd}: ${hydra:...} has no value here; a path without a leading /",
    ),
    ("output_dir=${nope}", "Interpolation key 'nope' not found"),
    ("output_dir=${oc.env:NO_SUCH_VARIABLE}", "Environment variable 'NO_SUCH_VARIABLE' not found"),
    ("seed=${seed}", "seed=${seed}: Recursive interpolation"),
    ("--config-dir /nonexistent", "--config-dir /nonexistent: no such folder"),
    ("parallel=fsdp2", "parallel: no such key"),  # taken out: it never ran, or trained nothing
    # functions
    ("loss._target_=nope", "'nope' is not a dotted name"),
    ("loss._target_=os.system", "a loss must take 'forget'"),
    ("loss._target_=loku_exp.losses.builtin.nope", "has no function 'nope'"),
    ("loss._target_=no.such.module", "cannot find module 'no.such'"),
    ("loss._target_=3", "loss._target_=3: should be text"),
    ("method._target_=no.such", "cannot find module 'no'"),
    ("method.kind=nope method=control", "method.kind='nope': should be 'untouched'"),
    ("method=prompt_corruption method.strength=0", "method.strength=0: should be greater than 0"),
    ("attacks=[relearn] attacks.relearn.rows=0", "attacks.relearn.rows=0: should be greater than"),
    ("attacks=[relearn] attacks.relearn.choose=best", "should be 'spread' or 'first'"),
    ("attacks=[int4] attacks.int4.bits=5", "attacks.int4.bits=5: should be 4 or 8"),
    ("attacks=[int4] attacks.int4.group=0", "attacks.int4.group=0: should be greater than"),
    ("evaluation.membership=[los]", "evaluation.membership=['los']: should be 'loss', 'zlib', "),
    ("dataset.num_holdout=-1", "dataset.num_holdout=-1: should be greater than or equal to 0"),
    ("attacks=[leak] attacks.leak.samples=0", "attacks.leak.samples=0: should be greater than or"),
    ("attacks=[leak] attacks.leak.temperature=0", "attacks.leak.temperature=0: should be greater"),
    ("attacks=[context_given] attacks.context_given.arm=x", "should be 'given', 'same_author' or"),
    ("training.stop={meets:nope}", "training.stop.meets=nope: should be 'forget_prob' or"),
    (
        "training.stop={n:0,el:null,ma:null}",
        "training.stop.n=0: should be greater than or equal to 1",
    ),
    ("training.stop={meets:forget_prob,n:3}", "training.stop.n: no such key"),
    # what does not go together
    ("method=prompt_corruption loss=gd", "method=prompt_corruption takes no loss"),
    ("method=prompt_corruption lora.rank=4", "method=prompt_corruption takes no lora"),
    ("unlearn=false loss=gd", "unlearn=false only evaluates, and takes no loss"),
    ("lora=none init=fila", "lora=none has none; set init=none"),
    ("lora=none lora.rank=4", "lora.rank=4: lora=none trains all weights and has no rank"),
    ("init=none", "use init=vanilla"),
    ("lora.targets=qkv", "lora.targets=qkv: toy_neo has all, qv, qkvo, ffn, qvffn"),
    (
        "lora.targets=[nothing]",
        "lora.targets=['nothing']: should be the name of a list in model.lora_targets; layers stand in "
        "such a list: model.lora_targets.all=[nothing]",
    ),
    (
        "model.lora_targets.all=[nothing]",
        "LoRA target 'nothing' matches no linear layer; this model",
    ),
    ("model.lora_targets.all=[]", "model.lora_targets.all=[]: should have at least 1 item"),
    ("lora.alpha=1e300", "lora.alpha=1e+300: should be a whole number (for example 1)"),
    ("model=hf", "dataset: not chosen; add dataset="),
    ("model=hf dataset=toy_tofu", "model.path is not set; give a hub id or a folder"),
    ("reference.source=path", "reference.source=path needs reference.path=..."),
    ("reference.source=log", "reference.source=log needs reference.path=..."),
    ("reference.source=nope", "should be 'train', 'path', 'log' or 'none'"),
    ("reference.path=/x", "reference.path=/x is not used with reference.source=train"),
    ("dataset.num_forget=999", "must be at most half of dataset.num_authors=60"),
    ("dataset.num_authors=0", "dataset.num_authors=0: should be greater than or equal to 1"),
    ("lora.rank=4,8", "several values make a sweep; add -m (--multirun)"),
    ("pairs=[{seed:1}]", "several values make a sweep; add -m"),
    ("lora.rnak=4 loss=ihll seed=-1", "lora.rnak: no such key|loss=ihll: no such loss|seed=-1"),
    # sweeps
    ("-m loss=glob(*)", "loss=glob(*): name the values instead: loss=a,b"),
    ("-m loss=gd,nope", "loss=nope: no such loss"),
    ("-m lora.rank=4,four", "lora.rank=four: should be a whole number (for example 1)"),
    ("-m pairs=3", "pairs=3: not a list of entries"),
    ("-m seed=interval(0,1)", "a sweep needs values: seed=a,b"),
    ("-m hydra/launcher=joblib", "folders and sweeps are loku_exp's own"),
    ("-m launcher=in_process,processes", "launcher: a sweep has one"),
    # what only reading the data, the device or a folder shows
    ("device=gpu", "device=gpu: not available here"),
    ("device=cuda:99", "device=cuda:99: not available here"),
    ("output_dir=/proc/x", "output_dir=/proc/x"),
    (
        'output_dir="~nobody_at_all/x"',
        "output_dir=~nobody_at_all/x: there is no such home folder here; set HOME",
    ),
    (
        '-m seed=0,1 cache_dir="~nobody_at_all/x"',
        "cache_dir=~nobody_at_all/x: there is no such home folder here; set HOME",
    ),
    ("output_dir=/dev/null/x", "is not a folder that can be written to"),
    ("evaluation.max_tokens=5", "counts prompt and generation together"),
    ("evaluation.max_tokens=100000", "exceeds the model's context"),
    ("init.num_retain=100000", "set init.num_retain to fewer"),
    ("attacks=[relearn] attacks.relearn.rows=100000", "the forget set has"),
    ("dataset.num_holdout=999", "dataset.num_holdout=999: beside dataset.num_authors=60"),
    (
        "attacks=[context_same] attacks.context_same.rows=10",
        "an author of the forget set has 9 rows",
    ),
    ("attacks=[leak] dataset=toy_tdec", "attacks=leak: it needs a forget set of questions"),
    ("training.stop={meets:forget_prob} reference.source=none", "there is no reference to meet"),
    ("training.stop={n:3,el:null,ma:null}", "training.stop={meets: forget_prob}"),
    (
        "dataset=toy_tdec ~training.stop +training.stop={meets:forget_prob}",
        "has no such rule, TOFU",
    ),
    ("attacks=[nf4] attacks.nf4.bits=8", "attacks.nf4.bits=8: nf4 has 4"),
    ("target.path=/nonexistent", "target.path=/nonexistent: no such folder"),
    ("regulariser=rol regulariser.weight=-1", "regulariser.weight=-1"),
    ("regulariser=rol regulariser.rnak=1", "did you mean 'regulariser.rank'"),
    ("regulariser=rol", "regulariser.rank=128: transformer.h.0.attn.attention."),
    ("regulariser=rol regulariser.rank=50 regulariser.number=9", "regulariser.rank=50: 9 retain"),
    ("regulariser=rol lora=none", "regulariser=rol: it is a term on an adapter's A and B"),
    ("regulariser=rol unlearn=false", "only evaluates, and takes no regulariser; remove it"),
    ("regulariser=rol method=prompt_corruption", "method=prompt_corruption takes no regulariser"),
    ("target=run", "target.run=: not set; give the folder of a finished run"),
    ("target=run target.run=/nonexistent", "target.run=/nonexistent: no such folder"),
    ("target.run=. target.path=a/b", "target.run=.: there is target.path=a/b too"),
    ("target.run=. model.weights=random", "target.run=.: model.weights=random has no use for it"),
    ("target=run target.run=.", "target.run=.: . is no folder of a run: it has no done.json"),
    ("lora.rank=1000", "lora.rank=1000 exceeds layer"),
    ("training.epochs=0.001", "is less than one update"),
    ("training.epochs=1e8", "epochs=1e+08 over 400 examples: the order of 40,000,000,000"),
    ("-m lora.rank=range(9,4)", "lora.rank=range(9,4): no value lies in it; write lora.rank="),
    ("-m lora.rank=range(4,9,0)", "lora.rank=range(4,9,0): a range needs a step other than 0"),
    ("model.architecture.hidden_size=63", "model.architecture: no model can be built of these"),
    ("hydra.run.dir=x", "hydra.run.dir: folders and sweeps are loku_exp's own, not Hydra's; use"),
    ("dataset=toy_tdec evaluation=toy_tofu", "dataset.known_by=forget_ma: the suite has no such"),
    ("loss=dpo dataset=toy_tdec", "take another loss or a dataset that has it"),
    ("device=gpu", "device=gpu: not available here (devices are auto, cpu, cuda, cuda:1, mps)"),
    ("lora=none lora.rank=8", "lora.rank=8: lora=none trains all weights and has no rank"),
    ("lora=none lora.base=nf4", "lora.base=nf4: lora=none trains all weights and has no base"),
    (
        "evaluation.tasks=[x] evaluation.include_path=nope",
        "evaluation.include_path=nope: no such folder",
    ),
]


@pytest.mark.parametrize(("arguments", "said"), SAID, ids=[text for text, _ in SAID])
def test_one_line_a_problem_and_exit_code_1(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given = [f"cache_dir={tmp_path / 'cache'}"] if "cache_dir=" not in arguments else []
    with pytest.raises(SystemExit) as ended:
        main([*arguments.split(" "), *given])
    assert ended.value.code == 1
    error = capsys.readouterr().err
    for problem in said.split("|"):
        assert problem in error
    lines = [line for line in error.splitlines() if line]
    assert all(line.startswith("error: ") for line in lines), error
    assert "constrained-int" not in error
    assert "parse" not in error  # pydantic's words
    assert "valid " not in error
    made = {path.name for path in tmp_path.iterdir()} - {"cache"}
    assert not made
    assert not list(tmp_path.glob("cache/models/*"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    ["loss=nan", "lora.rnak=4", "training.betas=[0.9,1.0]", "model.name=../x", "-m loss=gd,nope",
     "--config-dir /nonexistent", "output_dir=a#b", "method=prompt_corruption loss=gd",
     "attacks=[nope]", "device=gpu"],
)  # fmt: skip
def test_the_same_in_a_process_of_its_own(arguments, tmp_path):
    """The command itself: the message on stderr, nothing on stdout, no traceback, exit code 1."""
    environment = os.environ | {"LOKU_CACHE": str(tmp_path / "cache"), "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-m", "loku_exp", *arguments.split(" ")],
        capture_output=True, text=True, env=environment, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" not in done.stderr
    assert re.match(r"error: ", done.stderr)


def test_debug_shows_where_it_comes_from(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOKU_DEBUG", "")
    with pytest.raises(SystemExit):
        main(["--debug", "loss=nan"])
    error = capsys.readouterr().err
    assert "Traceback" in error
    assert error.splitlines()[-1].startswith("error: loss=nan: no such loss")
