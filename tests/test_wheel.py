"""The wheel carries the yaml and works from any folder; both lists of versions say the same."""

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from loku_exp.config.groups import conf_dir

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_wheel_works_from_any_folder(tmp_path):
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        str(ROOT),
        "-w",
        str(tmp_path),
        "-q",
        "--no-deps",
    ]
    subprocess.run([*build, "--no-build-isolation"], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    packed = site / "loku_exp/conf"
    names = {path.relative_to(packed) for path in packed.rglob("*.yaml")}
    assert names == {path.relative_to(conf_dir()) for path in conf_dir().rglob("*.yaml")}
    assert (site / "loku_exp/lm_eval/tasks/tofu_forget10.yaml").is_file()
    elsewhere.mkdir()
    result = subprocess.run(
        [sys.executable, "-m", "loku_exp", "model=phi", "--cfg", "job"],
        cwd=elsewhere,
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "locuslab/TOFU" in result.stdout
    assert list(elsewhere.iterdir()) == []
    code = "import loku_exp; print(loku_exp.__file__)"
    environment = os.environ | {"PYTHONPATH": str(site)}
    python = [sys.executable, "-c", code]
    where = subprocess.run(python, cwd=elsewhere, env=environment, capture_output=True, text=True)
    assert where.stdout.startswith(str(site))


def test_the_lock_has_the_tested_versions():
    """Of both lists: what pyproject asks for, and which version of each package it gets."""
    lock = tomllib.loads((ROOT / "uv.lock").read_text())
    locked = {(part["name"], part["version"]) for part in lock["package"] if "version" in part}
    lines = (ROOT / "constraints.txt").read_text().splitlines()[1:]
    tested = {tuple(line.lower().replace("_", "-").split("==")) for line in lines}
    assert not {(name.replace(".", "-"), version) for name, version in tested} - locked
    asked = {
        (part["name"], part.get("specifier", ""))
        for part in next(p for p in lock["package"] if p["name"] == "loku-exp")["metadata"][
            "requires-dist"
        ]
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    for wanted in (Requirement(text) for texts in lists for text in texts):
        known = [spec for name, spec in asked if name == wanted.name.replace("_", "-")]
        assert wanted.specifier in [SpecifierSet(spec) for spec in known], wanted
