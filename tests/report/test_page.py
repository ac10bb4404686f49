"""The page as a browser lays it out: nothing runs past a phone's screen or a desktop's."""

import json
import re
import shutil
import subprocess
from html import escape, unescape

import pytest

from loku_exp.report.collect import collect
from loku_exp.report.page import SCRIPT, write_report
from tests.report.factory import edit, tdec, tofu

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
WIDTHS = (400, 1280)
# a frame of each width; what is wider than it and cannot be scrolled by itself is named
FRAMES = """<body><script>
const found = {}, widths = %s;
for (const width of widths) {
  const frame = document.createElement("iframe");
  frame.style.width = width + "px"; frame.style.height = "900px"; frame.style.border = 0;
  frame.src = "report.html";
  frame.onload = () => {
    const page = frame.contentDocument;
    page.querySelectorAll("details").forEach(part => { part.open = true; });
    const root = page.scrollingElement;
    const wide = [...page.body.querySelectorAll("*")].filter(part =>
      part.getBoundingClientRect().right > width + 1 && !scrolls(part, page));
    found[width] = {inner: frame.contentWindow.innerWidth, scrolled: root.scrollWidth,
                    wide: wide.slice(0, 5).map(part => part.tagName + "." + part.className)};
    if (Object.keys(found).length == widths.length)
      document.body.innerHTML = "<pre>" + JSON.stringify(found) + "</pre>";
  };
  document.body.append(frame);
}
function scrolls(part, page) {
  for (let above = part; above && above !== page.body; above = above.parentElement) {
    const how = frameStyle(above);
    if (["auto", "scroll", "hidden"].includes(how.overflowX)) return true;
  }
  return false;
}
function frameStyle(part) { return part.ownerDocument.defaultView.getComputedStyle(part); }
</script></body>"""


def collapsed(record):
    record["models"]["unlearned"]["judgement"]["collapsed"] = True


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
def test_the_page_fits_a_phone_and_a_desktop(tmp_path):
    for base in (0, 1):
        for loss in ("gd", "ihl"):
            run = edit(tofu(tmp_path / "runs/tofu", loss=loss, base=base), collapsed)
            text = (run / "examples.jsonl").read_text()
            (run / "examples.jsonl").write_text(text.replace("unlearned says", "m" * 300))
            tdec(tmp_path / "runs/tdec", loss=loss, forget_set=base)
    found = collect(tmp_path / "runs")
    page = write_report(found, found.runs, tmp_path / "runs", tmp_path / "page")[0]
    shutil.copy(page, tmp_path / "report.html")
    (tmp_path / "frames.html").write_text(FRAMES % list(WIDTHS))
    command = [
        str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files",
        f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=10000", "--dump-dom",
        (tmp_path / "frames.html").as_uri(),
    ]  # fmt: skip
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120)
    measured = re.search(r"<pre>(.*?)</pre>", shown.stdout, flags=re.DOTALL)
    assert measured is not None, shown.stderr[-2000:]
    for width, laid_out in json.loads(measured.group(1).replace("&quot;", '"')).items():
        assert laid_out["inner"] == int(width)
        assert laid_out["scrolled"] <= int(width), laid_out
        assert laid_out["wide"] == []


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
def test_rates_are_sorted_as_rates_and_an_underflowed_p_first(tmp_path):
    columns = {
        "success": (["1 of 1", "2 of 3 [0.2, 0.9]", "0 of 3"], ["0 of 3", "2 of 3 [0.2, 0.9]", "1 of 1"]),
        "p": (["0.02", "< 1e-300", "3e-05"], ["< 1e-300", "3e-05", "0.02"]),
    }  # fmt: skip
    for name, (cells, ordered) in columns.items():
        rows = "".join(f"<tr><td>{escape(cell)}</td></tr>" for cell in cells)
        (tmp_path / "sorted.html").write_text(
            f"<table class=sortable><thead><tr><th>{name}</th></tr></thead><tbody>{rows}</tbody></table>"
            f"<script>{SCRIPT}</script><script>document.querySelector('thead button').click()</script>"
        )
        command = [
            str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
            f"--user-data-dir={tmp_path / 'profile'}", (tmp_path / "sorted.html").as_uri(),
        ]  # fmt: skip
        shown = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert [unescape(cell) for cell in re.findall("<td>(.*?)</td>", shown.stdout)] == ordered
