"""What was kept, as a share of the target's."""

from loku_exp.evaluation.kept import kept
from loku_exp.evaluation.suite import Evaluation


def of(**metrics):
    return Evaluation(metrics, {}, [])


def test_shares_of_what_both_have_and_the_target_has_any_of():
    model = of(reasoning=0.3, dialogue=0.1, sibling_ma=0.45, reasoning_local=0.2)
    target = of(reasoning=0.4, dialogue=0.0, sibling_ma=0.9)
    assert kept(model, target) == ["reasoning 75 % of the target's"]
    phrase = {"sibling_ma": "siblings keep {} of their MA"}
    assert kept(model, target, phrase) == ["siblings keep 50 % of their MA"]
    assert kept(of(), target) == kept(model, of()) == []
