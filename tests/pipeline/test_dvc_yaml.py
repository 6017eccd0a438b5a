"""dvc.yaml says what is true: code, notebooks, parameters and folders, in every profile."""

import ast
import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from lib.core.code import closure, imports, notebook_hash
from lib.core.errors import InputError
from lib.core.params import PROFILES, load_params, section
from lib.pipeline import code
from lib.pipeline.graph import read_graph

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _top_folder(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="module")
def text():
    return (ROOT / "dvc.yaml").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def raw(text):
    """The stages as written, unresolved."""
    return yaml.safe_load(text)["stages"]


@pytest.fixture(scope="module")
def stages():
    """Name -> (command, keys of code.yaml) as DVC resolves them in the active profile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return code.commands(read_graph().values())


def flat(tree, prefix=""):
    return {
        name: value
        for key, node in tree.items()
        for name, value in (flat(node, f"{prefix}{key}.") if isinstance(node, dict) else {prefix + key: node}).items()
    }


def test_code_yaml_is_fresh_and_every_stage_lists_its_code(stages):
    """`make format` writes code.yaml anew; a stage that names code that is not there, or too few keys, is an error."""
    assert code.code_text(stages) == Path("code.yaml").read_text(encoding="utf-8")


def test_wrong_stages_are_named_before_anything_runs(stages):
    known = dict(stages)
    known["lost"] = ("python -m lib.datasets.nowhere.twin", ["lib.datasets.nowhere.twin"])
    known["short"] = ("python -m lib.pipeline.notebooks 03_train -p paper mvfnet", ["notebooks.03_train", "lib.tune"])
    with pytest.raises(InputError) as caught:
        code.code_text(known)
    for message in (
        "lost runs lib.datasets.nowhere.twin, which does not exist",
        "short does not list lib.papers.mvfnet.training of code.yaml",
        "short lists lib.tune of code.yaml but does not run it",
    ):
        assert message in str(caught.value)


def test_a_constant_of_a_loss_reruns_what_trains_or_measures_with_it(tmp_path, stages):
    """And a docstring reruns nothing: tests/core/test_code.py."""
    tree = tmp_path / "tree"
    shutil.copytree(ROOT / "lib", tree / "lib", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "notebooks", tree / "notebooks")
    with open(tree / "lib/losses/alignment.py", "a", encoding="utf-8") as file:
        file.write("\nADDED = 1\n")
    names = [key for _, listed in stages.values() for key in listed]
    before = flat(code.hashes(names))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tree)
        after = flat(code.hashes(names))
    changed = {key for key in before if before[key] != after[key]}
    found = {name.split("@")[0] for name, (_, listed) in stages.items() if changed & set(listed)}
    # the bounds, too: the model's file holds its objective
    assert found == {
        *("train_mvfnet_stage1", "train_mvfnet_stage2", "evaluate_mvfnet_bounds", "evaluate_mvfnet"),
        *("mvfnet_lighting", "mvfnet_landscape", "notebook_10", "notebook_11", "notebook_12", "notebook_13"),
    }


def test_notebooks_follow_their_own_text_and_imports(tmp_path):
    path = ROOT / "notebooks/12_mvfnet_lighting.ipynb"
    edited = tmp_path / "n.ipynb"
    edited.write_text(path.read_text(encoding="utf-8").replace("lighting", "Lighting", 1), encoding="utf-8")
    assert notebook_hash(edited) != notebook_hash(path)


def test_every_notebook_is_in_the_pipeline(stages):
    used = {key.partition(".")[2] for _, listed in stages.values() for key in listed if key.startswith("notebooks.")}
    assert used == {path.stem for path in Path("notebooks").glob("*.ipynb")}


def test_files_of_the_repository_that_stages_read_exist(raw):
    listed = {path for stage in raw.values() for path in stage.get("deps", ()) if path.startswith("lib/")}
    assert [path for path in sorted(listed) if not Path(path).exists()] == []


@pytest.mark.parametrize("profile", PROFILES)
def test_parameters_exist_in_every_profile(text, raw, profile):
    """Parameters that stages name, and those that dvc.yaml puts into commands and paths."""
    params = load_params(f"lib/profiles/{profile}.yaml")
    for stage in raw.values():
        for name in stage.get("params", ()):
            if isinstance(name, str) and "${" not in name:
                section(params, name)
    for name in re.findall(r"\$\{([\w.]+)\}", text):
        if not name.startswith("item"):
            section(params, name)


def test_stages_that_render_follow_the_choice_of_renderer(raw):
    """All whose code reaches the rasteriser, but for those that import it and render nothing."""
    nothing = {"pretrain", "train_sv", "train_mv", "pack_multipie", "notebook_13", "notebook_61"}
    nothing |= {"labels_siamese", "labels_mvfnet"}
    nothing |= {name for name, stage in raw.items() if "-m lib.tables" in stage["cmd"]}
    renders = {name for name, stage in raw.items() if "renderer" in stage["params"]}
    assert not renders & nothing
    for name, stage in raw.items():
        names = [key for param in stage["params"] if isinstance(param, dict) for key in param["code.yaml"]]
        own = [key for key in names if key not in ("lib.pipeline.notebooks", "notebooks.03_train")]
        modules = {m for key in own for m in notebook_modules(key)} or set(own)
        reaches = "lib.renderers.rasterize" in closure(*modules)
        assert reaches if name in renders else not reaches or name in nothing, name


def notebook_modules(key):
    if not key.startswith("notebooks."):
        return {key}
    cells = json.loads(Path("notebooks", key.partition(".")[2] + ".ipynb").read_text(encoding="utf-8"))["cells"]
    code_cells = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return {name for text in code_cells for name in imports(ast.parse(text))}


def test_small_results_are_in_git_and_large_data_in_dvc(raw):
    """Everything under results/ is `cache: false`, nothing under data/ is; both are folders of the profile."""
    for name, stage in raw.items():
        for out in [*stage.get("outs", ()), *stage.get("metrics", ())]:
            path, options = next(iter(out.items())) if isinstance(out, dict) else (out, {})
            assert path.startswith(("data/", "results/")), f"{name}: {path}"
            assert (options.get("cache") is False) == path.startswith("results/"), f"{name}: {path}"
            shared = ("data/face_model.npz", "data/population.npz", "results/README.md", "results/ledgers")
            assert "${profile}" in path or "${material}" in path or path in shared, (
                f"{name}: {path} is shared by all profiles"
            )


def test_params_yaml_is_a_profile_as_committed():
    active = load_params()
    assert yaml.safe_load(Path("lib/profiles", f"{active['profile']}.yaml").read_text()) == active


def test_the_pipeline_stays_small():
    assert len(Path("dvc.yaml").read_text().splitlines()) <= 800
