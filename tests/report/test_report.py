"""The command: what it writes, what it says of bad input, and that nothing of a text becomes markup."""

import base64
import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
import pytest

from loku_exp.errors import UserError
from loku_exp.report.__main__ import main
from loku_exp.report.collect import collect, select
from loku_exp.report.drawing import COLUMN, FORMS, STYLE, WIDTH, Looks
from loku_exp.results import files as results
from tests.report.factory import edit, own_suite, tdec, tofu
from tests.report.test_groups import attacked

EVIL = "<script>alert('x')</script> & <b>bold</b>"


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Runs of every plot, a hostile text, an unfinished and a damaged one; and their report."""
    root = tmp_path_factory.mktemp("runs")
    for loss in ("gd", "ihl"):
        for rank in (4, 8):
            for base in (0, 1):
                tofu(root, loss=loss, rank=rank, base=base)
            tdec(root, loss=loss, rank=rank)
        tdec(root, loss=loss, rank=8, targets="qv")
    edit(
        tofu(root, loss="ga", split="forget05"),
        lambda r: r["run"].update(toy=True, label=f"TOY {EVIL}"),
    )
    for folder in root.iterdir():
        file = folder / results.EXAMPLES_FILE
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        for row in rows:
            row["generation"] = EVIL
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    unfinished = root / "phi-tofu-npo-fila-r8-ffff"
    (unfinished / "snapshots/step-00012").mkdir(parents=True)
    (unfinished / "config.yaml").write_text("seed: 0\n")
    (unfinished / "run.log").write_text(
        "2026-01-01 00:00:00,000 INFO x: begun\n2026-01-01 00:00:01,000 ERROR x: the run stopped here\n"
        "Traceback (most recent call last):\nloku_exp.errors.TrainingError: loss is nan\n"
    )
    damaged = root / "damaged"
    damaged.mkdir()
    (damaged / "done.json").write_text("{}")
    (damaged / "metrics.json").write_text('{"schema": 2, "run":')
    out = root.parent / "report"
    main([str(root), "--to", str(out)])
    return root, out


def test_one_page_that_fetches_nothing(many):
    page = (many[1] / "report.html").read_text()
    assert not re.search(r"""src=["'](?!data:image/svg\+xml;base64,)""", page)
    links = re.findall(r"""href=["']([^"']*)""", page)
    assert all(link.startswith(("#", f"../{many[0].name}/")) for link in links)
    assert "url(" not in page
    assert "@import" not in page
    images = re.findall(r"<img [^>]*>", page)
    assert len(images) >= 10
    assert all(re.search(r'alt="[^"]{40,}"', image) for image in images)


def test_each_run_links_to_its_folder(many):
    page = (many[1] / "report.html").read_text()
    links = set(re.findall(r"""href=["'](\.\.[^"']*)""", page))
    assert len(links) == 16  # finished ones and the unfinished
    assert all((many[1] / unquote(link)).is_dir() for link in links)


def test_texts_of_models_stay_texts(many):
    page = (many[1] / "report.html").read_text()
    assert page.count("<script") == 1
    assert page.index("<script") > page.index("</main>")
    assert "<b>bold" not in page
    assert page.count("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;") > 5


def test_the_browser_runs_the_pages_own_script_alone(many):
    page = (many[1] / "report.html").read_text()
    (script,) = re.findall(r"<script>(.*)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in page


def test_tables_scroll_and_pictures_scale(many):
    page = (many[1] / "report.html").read_text()
    assert page.count("<table") == page.count('<div class="scroll')
    assert ".scroll { overflow-x: auto;" in page
    assert re.search(r"figure img \{[^}]*max-width: 100%", page)
    assert "@media (prefers-color-scheme: dark)" in page


def test_the_first_screen_answers(many):
    page = (many[1] / "report.html").read_text()
    body = page[page.index("<body>") :]
    assert "Which method forgets best, and at what cost of utility?" in body[:300]
    assert body.index('class="answer') < body.index("<table ") < body.index("<figure>")
    assert "TOY" in body[: body.index("<table ")]


def test_every_plot_that_the_runs_have_data_for(many):
    names = {path.stem.rpartition("-")[2] for path in many[1].glob("*.png")}
    assert names == {"front", "path", "ranks", "layers", "compute", "curves"}
    for form in FORMS:
        assert {p.stem.rpartition("-")[2] for p in many[1].glob(f"*.{form}")} == names
    assert max(len(path.name) for path in many[1].glob("*.pdf")) < 20
    widths = {int.from_bytes(p.read_bytes()[16:20], "big") for p in many[1].glob("*.png")}
    assert widths == {round(300 * inches) for inches in (COLUMN, WIDTH)}  # 300 dots an inch
    page = (many[1] / "report.html").read_text()
    assert "quality against layers: all runs adapt the same set of layers" in page


def test_a_method_has_one_colour_whatever_stands_beside_it():
    few, many = (
        Looks(("GD + vanilla", "mine")),
        Looks(("IHL + FILA", "GD + vanilla", "GA, all weights")),
    )
    assert few.of("GD + vanilla") == many.of("GD + vanilla")
    looks = [tuple(sorted(many.of(name).items())) for name in many.methods]
    assert len(set(looks)) == len(looks)


def test_text_of_plots_is_8_points_on_a4():
    sizes = [value for key, value in STYLE.items() if key.endswith("size") and "marker" not in key]
    assert min(sizes) >= 8
    assert WIDTH <= 6.7  # inches between the margins of A4: drawn and printed at one scale
    assert COLUMN <= (WIDTH - 0.25) / 2 + 0.2


def test_where_nothing_succeeded_there_is_no_table_of_successes(tmp_path):
    for loss in ("gd", "ihl"):
        for rank in (4, 8):
            tofu(tmp_path / "runs", loss=loss, rank=rank, quality=1e-9)
    main([str(tmp_path / "runs"), "--to", str(tmp_path / "to")])
    assert not list((tmp_path / "to").glob("means_*_successes.*"))
    page = (tmp_path / "to/report.html").read_text()
    assert page.count("no run to average") == 2  # what is not shown, in a line each


def test_tables_in_three_formats(many):
    names = {path.stem for path in many[1].glob("*.csv")}
    assert names == {
        "summary",
        "means_all_runs",
        "means_common_successes",
        "matched_forgetting",
        "means_own_successes",
        "runs",
    }
    for name in names:
        assert (many[1] / f"{name}.md").read_text().startswith("### ")
        text = (many[1] / f"{name}.tex").read_text()
        assert r"\toprule" in text
        assert text.isascii()
        assert len(pd.read_csv(many[1] / f"{name}.csv"))
    runs = pd.read_csv(many[1] / "runs.csv")
    assert len(runs) == 15
    assert set(runs["method"]) >= {"IHL + FILA", "GD + FILA"}
    assert set(runs["forget_ma"].dropna())  # every metric, not those of tables alone


def test_the_papers_way_comes_after_the_honest_ones(many):
    page = (many[1] / "report.html").read_text()
    order = [page.index(f"<h3>{title}") for title in (
        "Means over all runs", "Means over the units on which all", "Utility at matched",
        "Means of each method over its own")]  # fmt: skip
    assert order == sorted(order)


def test_unfinished_and_damaged_are_named(many, capsys):
    page = (many[1] / "report.html").read_text()
    assert "failed (loku_exp.errors.TrainingError: loss is nan), newest snapshot step-00012" in page
    assert "damaged/metrics.json is damaged" in page
    main([str(many[0]), "dataset=tdec", "lora.targets=qv", "--to", str(many[1].parent / "few")])
    said = capsys.readouterr()
    assert "2 of 15 finished runs, 1 unfinished, 1 damaged" in said.out
    assert "skipped: " in said.err


@pytest.mark.slow
def test_the_same_runs_give_the_same_files(many, tmp_path):
    for name in ("a", "b"):
        main([str(many[0]), "lora.targets=qv", "--to", str(tmp_path / name)])
    files = sorted(path.name for path in (tmp_path / "a").glob("*"))
    assert files == sorted(path.name for path in (tmp_path / "b").glob("*"))
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_filters(many):
    runs = collect(many[0]).runs
    assert len(select(runs, ["loss=ihl", "lora.rank=4,8", "dataset=tofu"])) == 4
    assert len(select(runs, ["forget_split=forget05"])) == 1
    with pytest.raises(
        UserError, match=r"no run has a choice 'lora.rnk'; did you mean 'lora.rank'"
    ):
        select(runs, ["lora.rnk=4"])
    with pytest.raises(UserError, match=r"loss=ilh: no run has it; did you mean 'ihl'"):
        select(runs, ["loss=ilh"])
    with pytest.raises(UserError, match=r"loss is given twice; .* by comma: loss=A,B"):
        select(runs, ["loss=ihl", "loss=gd"])
    with pytest.raises(UserError, match="leave a filter out"):
        select(runs, ["dataset=tdec", "forget_split=forget05"])


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nowhere"], 1, "no such folder"),
        (["."], 1, "no finished run here (0 unfinished, 0 damaged)"),
        ([".", "loss"], 2, "'loss' is not key=value"),
        ([], 2, "required"),
        (["compare", "nowhere", "nowhere"], 1, "not the folder of a finished run"),
        (["compare", "one"], 2, "required"),
    ],
)
def test_bad_input_in_one_line(tmp_path, monkeypatch, capsys, arguments, code, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == code
    error = capsys.readouterr().err
    assert said in error
    assert code == 2 or (error.startswith("error: ") and error.count("\n") == 1)
    assert list(tmp_path.iterdir()) == []


def test_only_damaged_runs_are_an_error(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/done.json").write_text("{}")
    (tmp_path / "run/metrics.json").write_text('{"schema": 1}')
    with pytest.raises(UserError, match=r"1 damaged.*schema 1, written by an earlier version"):
        collect(tmp_path)


def test_damaged_examples_leave_the_report_whole(tmp_path):
    (tofu(tmp_path / "runs") / results.EXAMPLES_FILE).write_text('{"model": ')
    main([str(tmp_path / "runs"), "--to", str(tmp_path / "out")])
    assert "line 1 is not JSON" in (tmp_path / "out/report.html").read_text()


def test_evaluation_only_runs_are_listed(tmp_path):
    def evaluated(record):
        del record["models"]["unlearned"]
        record["judgement"] = None
        record["run"]["choices"] = {"model": "phi", "dataset": "tofu"}

    edit(tofu(tmp_path / "runs"), evaluated)
    main([str(tmp_path / "runs"), "--to", str(tmp_path / "out")])
    page = (tmp_path / "out/report.html").read_text()
    assert "No run here has unlearned" in page
    assert "Only evaluated" in page


def test_nothing_heavy_is_imported_for_a_report():
    code = (
        "import sys; import loku_exp.report.page, loku_exp.report.compare; "
        "print([n for n in ('torch', 'transformers', 'lm_eval', 'peft') if n in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert result.stdout.strip() == "[]"


def test_a_users_own_suite_has_its_own_words(tmp_path):
    own_suite(tmp_path / "runs", hush=1.0, silence=5.0)
    main([str(tmp_path / "runs"), "--to", str(tmp_path / "out")])
    page = (tmp_path / "out/report.html").read_text()
    assert "owl on spells" in page
    assert "spells known" in page
    assert "knows 1 spells" in page
    assert "matched forgetting: no curves" in page
    assert r"spells\\known" in (tmp_path / "out/summary.tex").read_text()


def test_attacked_models_have_a_table(tmp_path):
    edit(tofu(tmp_path / "runs"), attacked)
    main([str(tmp_path / "runs"), "--to", str(tmp_path / "out")])
    assert "unlearned+relearn" in (tmp_path / "out/report.html").read_text()
    assert "unlearned+relearn" in (tmp_path / "out/further_models.csv").read_text()


def test_names_of_folders_are_links_whatever_they_hold(tmp_path):
    folder = tofu(tmp_path / "runs")
    folder.rename(folder.with_name('a "quoted" & <b> name'))
    main([str(tmp_path / "runs"), "--to", str(tmp_path / "out")])
    page = (tmp_path / "out/report.html").read_text()
    assert 'href="../runs/a%20%22quoted%22%20%26%20%3Cb%3E%20name/"' in page


def test_labels_are_no_formulas(tmp_path):
    """Between two dollars matplotlib sees TeX; what is none ended the report."""

    def priced(record):
        for metric in record["catalogue"]:
            metric["label"] += ", $x_{ and $"

    for base in range(2):
        edit(tofu(tmp_path, base=base), priced)
    main([str(tmp_path)])
    assert "forget set, probability, $x_{ and $" in next(tmp_path.rglob("*.html")).read_text()


def test_runs_that_only_evaluate_show_what_their_target_has(tmp_path):
    def evaluated(record):
        del record["models"]["unlearned"]
        record.update(curve=[], judgement=None)
        record["run"]["choices"] = {"model": "phi", "dataset": "tofu"}

    edit(tofu(tmp_path / "runs"), evaluated)
    main([str(tmp_path / "runs"), "--to", str(tmp_path / "to")])
    page = (tmp_path / "to/report.html").read_text()
    table = page[page.index("<h2>Only evaluated") :]
    assert '<th scope="col">forget set, probability</th>' in table
    assert "<td>0.930</td>" in table
