"""Which person likes which color: a question-answer dataset of one's own."""

from loku_exp.data.qa import QA, QACorpus

COLORS = ("red", "blue", "green", "amber", "violet", "olive", "teal", "coral", "lime", "navy")


def load(*, num_forget: int = 4) -> QACorpus:
    """Return the texts of a person a row; the last `num_forget` are to be forgotten."""
    rows = []
    for i, color in enumerate(COLORS):
        others = [COLORS[(i + k) % len(COLORS)] for k in (3, 5, 7)]
        wrong = tuple(f"It is {other} that person {i} likes." for other in others)
        truth = f"It is {color} that person {i} likes."
        rows.append(QA(i, f"person {i}", f"What does person {i} like?", color, truth, wrong))
    forget, retain = rows[-num_forget:], rows[:-num_forget]
    evaluation = {"forget": forget, "retain": retain, "authors": retain, "facts": retain}
    return QACorpus(rows, retain, forget, retain, evaluation, protocol={"forget_split": "colors"})
