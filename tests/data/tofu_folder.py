"""A folder in TOFU's layout with invented rows."""

import json
from pathlib import Path


def write(folder, name, rows):
    (folder / f"{name}.json").write_text("".join(json.dumps(row) + "\n" for row in rows))


def rows(count, perturbed=0, first=0):
    made = []
    for i in range(first, first + count):
        row = {"question": f"q{i}?", "answer": f"a{i}"}
        if perturbed:
            row |= {
                "paraphrased_answer": f"p{i}",
                "perturbed_answer": [f"w{i}{k}" for k in range(5)],
            }
        made.append(row)
    return made


def tofu_folder(place: Path) -> Path:
    """Write 60 rows, the last 20 to forget."""
    write(place, "full", rows(60))
    write(place, "forget10", rows(20, first=40))
    write(place, "retain90", rows(40))
    write(place, "forget10_perturbed", rows(20, perturbed=5, first=40))
    write(place, "retain_perturbed", rows(8, perturbed=5))
    for name in ("real_authors_perturbed", "world_facts_perturbed"):
        wrong = [{"question": "who?", "answer": "x", "perturbed_answer": ["y", "z", "u"]}]
        write(place, name, wrong)
    return place
