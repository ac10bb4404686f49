"""Bases made side by side: each in a process of its own."""

import logging
from types import SimpleNamespace

from loku_exp.config.compose import compose_config
from loku_exp.stages import bases
from loku_exp.stages.machine import on_this_machine


def test_a_remark_on_the_inputs_is_not_made_again(tmp_path, monkeypatch):
    """The first process has made it; what the making itself has to say is said."""

    def load_inputs(*_):
        bases.log.warning("12 rows stand there twice")
        return SimpleNamespace()

    monkeypatch.setattr(bases, "load_inputs", load_inputs)
    monkeypatch.setattr(bases, "make_base", lambda *_: bases.log.warning("a loss of 99"))
    monkeypatch.setattr(bases, "start_logging", lambda: None)
    config = on_this_machine(compose_config([f"cache_dir={tmp_path}/cache"]))
    bases._make_in_own_process("target", config, tmp_path, 0)
    said = (tmp_path / bases.LOG_FILE).read_text()
    assert "a loss of 99" in said
    assert "12 rows" not in said
    assert logging.getLogger("loku_exp").isEnabledFor(logging.WARNING)
