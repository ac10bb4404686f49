"""The unlearning curve of one run."""

from pathlib import Path

import matplotlib as mpl

from loku_exp.record import Record
from loku_exp.results import title

mpl.use("Agg")
from matplotlib import pyplot as plt

FORGET, RETAIN, QUALITY = (
    "#0072B2",
    "#E69F00",
    "#009E73",
)  # Okabe and Ito: safe for the colour-blind


def curve(record: Record, file: Path) -> None:
    """Draw probability on forget and retain set, and forget quality, over epochs.

    Dotted lines are the reference's values: the aim is to meet them, not to pass them.

    Args:
        record: of the run.
        file: PNG to write.
    """
    points = sorted(record.curve, key=lambda point: point.step)
    compares = any("forget_quality" in point.metrics for point in points)
    figure, panels = plt.subplots(
        1, 1 + compares, figsize=(9 if compares else 5, 3.6), layout="constrained", squeeze=False
    )
    epochs = [point.epoch for point in points]
    reference = record.models["reference"].metrics if "reference" in record.models else {}
    left = panels[0][0]
    for name, label, color, marker in (
        ("forget_prob", "forget set", FORGET, "o"),
        ("retain_prob", "retain set", RETAIN, "s"),
    ):
        left.plot(
            epochs, [p.metrics[name] for p in points], color=color, marker=marker, label=label
        )
        if name in reference:
            left.axhline(reference[name], color=color, linestyle=":", label=f"{label}, reference")
    left.set(xlabel="epoch of unlearning", ylabel="answer probability", ylim=(0, 1.02))
    left.legend(fontsize=9)
    if compares:
        right = panels[0][1]
        quality = [max(p.metrics["forget_quality"], 1e-300) for p in points]
        right.semilogy(epochs, quality, color=QUALITY, marker="o", label="unlearned")
        right.axhline(0.05, color="0.4", linestyle="--", label="p = .05")
        right.set(xlabel="epoch of unlearning", ylabel="forget quality (p of KS test)")
        right.legend(fontsize=9)
    figure.suptitle(title(record), fontsize=10)
    figure.savefig(file, dpi=150)
    plt.close(figure)
