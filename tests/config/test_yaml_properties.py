"""Whatever a yaml of the user's own holds, it composes or is refused with lines for people."""

import tempfile
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from loku_exp.config.compose import compose_all
from loku_exp.errors import ConfigError

FOLDER = Path(tempfile.mkdtemp(prefix="own yaml"))
WORDS = st.sampled_from(
    ["_target_", ": ", "loku_exp.losses.builtin.gd", "retain_weight", "1.0", "\n", "\n  ", "- ", "[", "]",
     "{", "}", "&a", "*a", "!!python/object:os.system", "null", "nan", "defaults", "${seed}", "${", "'",
     '"', "#", "\t", "name", "?", "|", "%", "---", "\N{SNOWMAN}", "\0", "\ufeff"]
)  # fmt: skip
TEXTS = st.lists(WORDS | st.text(max_size=4), max_size=12).map("".join)


@settings(max_examples=20, deadline=None)
@given(TEXTS.map(lambda text: text.encode("utf-8", "surrogatepass")) | st.binary(max_size=20))
@example(b"_target_: loku_exp.losses.builtin.gd\nretain_weight: !!python/object:os.system 1\n")
@example(b"")
@example(b"- a\n")
@example(b"\xff\xfe")
def test_it_composes_or_is_refused_in_lines(content):
    (FOLDER / "loss").mkdir(exist_ok=True)
    (FOLDER / "loss/invented.yaml").write_bytes(content)
    problems = ["none"]
    try:
        compose_all([["loss=invented"]], str(FOLDER))
    except ConfigError as error:
        problems = error.problems
    assert problems
    assert all(problem.strip() for problem in problems)
    assert not any("Traceback" in problem for problem in problems)
