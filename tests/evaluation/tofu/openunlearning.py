"""A small log in the layout that OpenUnlearning's code writes; every number is invented."""

import random

PREFIXES = {
    "forget": ("forget", 5),
    "retain": ("retain", 5),
    "authors": ("ra", 3),
    "facts": ("wf", 3),
}


def log_of(answers: dict[str, list[str]], day: str = "10 Apr 2025") -> dict:
    """Return ``TOFU_EVAL.json`` of these true answers by set; half of the metrics it has."""
    rng, content = random.Random(0), {"forget_quality": {"agg_value": None}}

    def metric(rows: list[dict]) -> dict:
        return {"agg_value": 0.5, "value_by_index": {str(i): row for i, row in enumerate(rows)}}

    def prob(losses) -> dict:
        return {"prob": 0.5, "avg_loss": losses}

    for name, texts in answers.items():
        prefix, wrong = PREFIXES[name]
        one = [rng.uniform(0.5, 2) for _ in texts]
        many = [[rng.uniform(1, 3) for _ in range(wrong)] for _ in texts]
        content[f"{prefix}_Q_A_Prob"] = metric([prob(loss) for loss in one])
        content[f"{prefix}_Q_A_PERT_Prob"] = metric([prob(losses) for losses in many])
        if name in ("forget", "retain"):
            content[f"{prefix}_Q_A_PARA_Prob"] = metric([prob(loss + 0.25) for loss in one])
        content[f"{prefix}_Q_A_ROUGE"] = metric([
            {
                "rouge1_recall": 1.0, "rougeL_f1": 0.5, "rougeL_recall": (1 + row % 4) / 4,
                "input": f"system\n\nToday Date: {day}\n\nuser\n\n{name} {row}?assistant\n\n",
                "ground_truth": text, "generation": "something else",
            }
            for row, text in enumerate(texts)
        ])  # fmt: skip
    return content
