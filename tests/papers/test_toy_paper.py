"""CONTRIBUTING.md is true: a method comes in by one folder and one section of params.yaml; and what is wrong with it is named."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from lib import papers
from lib.core.checkpoint import save_weights
from lib.core.errors import InputError
from lib.models.parts.encoders import build_encoder
from tests.packs import write_training_set

ROOT = Path(__file__).resolve().parents[2]
TOY = Path(__file__).parent / "toy"

VERBS = """
from lib import evaluate, tables, train
for verb, *words in ((train, "toy", "--runs", "front"), (evaluate, "toy", "--bounds", "--workers", "1"),
                     (evaluate, "toy", "--seed", "0", "--workers", "1"), (tables, "toy", "--no-figures"), (tables, "--index")):
    assert not verb.main(words), words
"""


@pytest.fixture
def copy(tmp_path: Path, face_model, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of lib with the toy's folder, its section in the smoke profile's parameters, and data to learn from."""
    shutil.copytree(ROOT / "lib", tmp_path / "lib")  # with compiled kernels, where there are any
    shutil.copytree(TOY, tmp_path / "lib/papers/toy", ignore=shutil.ignore_patterns("params.yaml", "__pycache__"))
    text = (ROOT / "lib/profiles/smoke.yaml").read_text() + (TOY / "params.yaml").read_text()
    text = text.replace("profile: smoke", "profile: quick").replace("material: smoke", "material: quick")
    (tmp_path / "params.yaml").write_text(text)
    face_model.save(tmp_path / "data/face_model.npz")
    write_training_set(tmp_path / "data/quick/train", face_model)
    torch.manual_seed(0)
    save_weights(tmp_path / "data/quick/pretrained/resnet_tiny.safetensors", build_encoder("resnet_tiny"), {})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_one_folder_and_one_section_make_a_method(copy: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(copy)}
    done = subprocess.run([sys.executable, "-c", VERBS], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (copy / "data/quick/runs/toy/front-s0/model.safetensors").is_file()
    assert (copy / "data/quick/predictions/toy/front-s0.npz").is_file()
    table = (copy / "results/toy/quick/table1.md").read_text()
    assert re.search(r"\| Toy +\| +1\.50 \| +\d\.\d\d", table) and "| mean face |" in table
    assert "Toy, `quick` profile" in (copy / "results/README.md").read_text()


def test_what_is_wrong_with_a_paper_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(papers, "FOLDER", tmp_path)
    shutil.copytree(TOY, tmp_path / "toy")
    params = yaml.safe_load((TOY / "params.yaml").read_text())
    papers.check(params, "toy")
    with pytest.raises(InputError, match=r"volumes: a paper: toy"):
        papers.check(params, "volumes")
    with pytest.raises(InputError, match=r"params\.yaml: volumes: .*no .*papers/volumes"):
        papers.check(params | {"volumes": {"runs": {}}}, "toy")
    with pytest.raises(InputError, match=r"params\.yaml: toy: "):
        papers.check({}, "toy")
    (tmp_path / "toy/claims.csv").unlink()
    (tmp_path / "toy/tables.py").unlink()
    with pytest.raises(InputError, match=r"toy: lacks tables\.py, claims\.csv\n.*CONTRIBUTING\.md"):
        papers.training("toy")
