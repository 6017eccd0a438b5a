"""dvc.yaml says what is true: sources, notebooks, parameters and folders, in every profile."""

import re
from pathlib import Path

import pytest
import yaml

from lib.core import load_params, section
from lib.pipeline.code import closure, imported, is_source, problems, rewrite, stages

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _top_folder(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="module")
def text():
    return (ROOT / "dvc.yaml").read_text(encoding="utf-8")


def test_every_stage_lists_the_sources_it_uses(text):
    """Too few: stale results after a change. Too many: needless training. `make deps` corrects the lists."""
    assert problems(text) == []


def test_a_wrong_list_is_noticed_and_corrected(text):
    wrong = text.replace("      - lib/engine/loop.py\n", "", 1).replace(
        "      - lib/landmarks/crops.py\n", "      - lib/landmarks/crops.py\n      - lib/report/tables.py\n", 1
    )
    found = problems(wrong)
    assert any("lacks lib/engine/loop.py" in line for line in found)
    assert any("does not need lib/report/tables.py" in line for line in found)
    assert rewrite(wrong) == text
    assert rewrite(text) == text


def test_listed_files_exist(text):
    missing = {
        d for stage in stages(text).values() for d in stage.get("deps", ()) if is_source(d) and not Path(d).exists()
    }
    assert not missing


def test_every_notebook_is_in_the_pipeline(text):
    used = {m[1] for stage in stages(text).values() if (m := re.search(r"-m lib\.notebooks (\S+)", stage["cmd"]))}
    assert used == {path.stem for path in Path("notebooks").glob("*.ipynb")}


@pytest.mark.parametrize("profile", ["smoke", "quick", "paper"])
def test_parameters_exist_in_every_profile(text, profile):
    """Parameters that stages name, and those that dvc.yaml puts into commands and paths."""
    params = load_params(f"lib/profiles/{profile}.yaml")
    for stage in stages(text).values():
        for name in stage.get("params", ()):
            for run in ("mv_add", "mv_concat") if "${item.run}" in name else ("",):
                section(params, name.replace("${item.run}", run))
    for name in set(re.findall(r"\$\{([\w.]+)\}", text)) - {"item.run", "item.seed"}:
        section(params, name)


def test_small_results_are_in_git_and_large_data_in_dvc(text):
    """Everything under results/ is `cache: false`, nothing under data/ is; both are folders of the profile."""
    for name, stage in stages(text).items():
        for out in [*stage.get("outs", ()), *stage.get("metrics", ())]:
            path, options = next(iter(out.items())) if isinstance(out, dict) else (out, {})
            assert path.startswith(("data/", "results/")), f"{name}: {path}"
            assert (options.get("cache") is False) == path.startswith("results/"), f"{name}: {path}"
            shared = ("data/face_model.npz", "data/population.npz", "results/README.md", "results/ledgers")
            assert "${profile}" in path or path in shared, f"{name}: {path} is shared by all profiles"


def test_params_yaml_is_a_profile_as_committed():
    active = load_params()
    assert yaml.safe_load(Path("lib/profiles", f"{active['profile']}.yaml").read_text()) == active


def test_imports_are_followed_through_packages_and_functions(tmp_path, monkeypatch):
    for name, source in {
        "lib/__init__.py": "",
        "lib/p/__init__.py": "from lib.p.one import f\nfrom lib.p.two import g\n",
        "lib/p/one.py": "import numpy\n",
        "lib/p/two.py": "def g():\n    from lib import q\n",
        "lib/q.py": "import lib.r\n",
        "lib/r.py": "",
        "lib/s.py": "from lib.p import f\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    monkeypatch.chdir(tmp_path)
    from lib.pipeline.code import reexports

    reexports.cache_clear()
    try:
        assert {p.as_posix() for p in closure({"lib.s"})} == {"lib/s.py", "lib/p/one.py"}, "only the name that is used"
        assert {p.as_posix() for p in closure({"lib.p.two"})} == {"lib/p/two.py", "lib/q.py", "lib/r.py"}
        assert set(imported("import lib.q\nfrom lib.p import g, one")) == {"lib.q", "lib.p.two", "lib.p.one"}
    finally:
        reexports.cache_clear()
