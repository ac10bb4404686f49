"""Whatever is typed, it composes or is refused with lines for people."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from loku_exp.config.command_line import read_command_line
from loku_exp.config.compose import compose_all
from loku_exp.config.schema import Config
from loku_exp.errors import ConfigError

KEYS = st.sampled_from(
    ["loss", "init", "model", "dataset", "lora", "attacks", "method", "training.epochs", "lora.rank",
     "training.betas", "loss.retain_weight", "dataset.num_forget", "output_dir", "seed", "pairs", "x.y",
     "hydra.run.dir", "model.architecture.hidden_size", "evaluation.rows", "reference.source", "", "."]
)  # fmt: skip
VALUES = st.one_of(
    st.sampled_from(
        ["null", "nan", "-1", "1e999", "true", "[1,2]", "{a:1}", "a,b", "range(3)", "choice(gd,ihl)", "???",
         "${seed}", "${", "'", '"', "\\", "", "gd", "ihl", "4,8", "[]", "{}", "a=b", "\N{SNOWMAN}"]
    ),
    st.text(max_size=6),
    st.integers().map(str),
    st.floats().map(str),
)  # fmt: skip
PREFIXES = st.sampled_from(["", "", "", "+", "++", "~", "-", "@"])
WORDS = st.one_of(
    st.builds("{}{}={}".format, PREFIXES, KEYS, VALUES),
    st.builds("{}{}".format, PREFIXES, KEYS),
    st.text(max_size=8),
)


@settings(max_examples=20, deadline=None)
@given(st.lists(WORDS, max_size=3), st.booleans())
@example(["loss=nan"], False)
@example(["+=1"], False)
@example(["~=3"], True)
@example(["pairs=[{loss:gd},3]"], True)
@example(["lora.rank=\ud800"], False)
@example(["~pairs"], True)
def test_it_composes_or_is_refused_in_lines(words, several):
    words = [word for word in words if not word.startswith("-")]
    problems = problems_of(words, several)
    assert all(problem.strip() for problem in problems)
    assert not any("Traceback" in problem for problem in problems)


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("key", [*Config.model_fields, "pairs", "pairing", "hydra"])
def test_what_is_taken_away_is_named(key, several):
    problems = problems_of([f"~{key}"], several)
    assert all(key in problem for problem in problems)


def problems_of(words, several):
    """Return what a command line is refused for; nothing where it composes."""
    line = read_command_line([*words, "-m"] if several else words)
    assert line is not None
    try:
        jobs = line.jobs()
        if len(jobs) <= 8:
            compose_all(jobs, None)
    except ConfigError as error:
        return error.problems or ["refused, and nobody said why: Traceback"]
    return []
