"""The notebook runner: parameters arrive, the copy is clean, a failure is explained and leaves the old result."""

import json

import nbformat
import pytest

from lib.core.errors import InputError
from lib.pipeline.notebooks import Scrubber, clean, execute

SCRIBBLE = """
import os, sys
from tqdm import tqdm
for i in tqdm(range(3)):
    pass
print("run", run, os.getcwd(), sys.executable, os.path.expanduser("~"))
import pandas as pd
display(object(), pd.DataFrame({"a": [1]}).style)
"""


def write_notebook(path, *sources):
    book = nbformat.v4.new_notebook()
    parameters = nbformat.v4.new_code_cell("run = 'default'", metadata={"tags": ["parameters"]})
    book.cells = [nbformat.v4.new_markdown_cell("# Title"), parameters]
    book.cells += [nbformat.v4.new_code_cell(source) for source in sources]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(book, path)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("JUPYTER_PATH", "IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "PYTHONPATH"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv(name, "")  # so that what the runner sets is undone after the test
    return tmp_path


def test_execution_is_clean_and_atomic(here):
    source, out, failed = here / "notebooks/n.ipynb", here / "results/n.ipynb", here / "data/n.failed.ipynb"
    write_notebook(source, SCRIBBLE)
    execute(source, out, {"run": "sv"}, failed)
    content = out.read_text()
    execute(source, out, {"run": "sv"}, failed)
    assert out.read_text() == content, "the same bytes when nothing changed"
    book = json.loads(content)
    nbformat.validate(nbformat.from_dict(book))
    outputs = [output for cell in book["cells"] for output in cell.get("outputs", ())]
    text = "".join(line for output in outputs for line in output.get("text", ()))
    assert text.startswith("run sv . <environment>/bin/python"), text
    assert "%|" not in content, "progress bars hold times"
    assert "0x" not in content
    for word in (str(here), "papermill", "iopub", "duration", "start_time"):
        assert word not in content
    assert [cell["id"] for cell in book["cells"]] == [f"cell-{i:02d}" for i in range(len(book["cells"]))]

    write_notebook(source, "x = 1", "x / 0")
    with pytest.raises(InputError, match="ZeroDivisionError.*division by zero"):
        execute(source, out, {}, failed)
    assert out.read_text() == content, "a failure must not touch the last good copy"
    assert "ZeroDivisionError" in failed.read_text()


def test_too_large_copies_are_refused(here):
    source, out = here / "notebooks/n.ipynb", here / "results/n.ipynb"
    write_notebook(source, "print('x' * 2_100_000)")
    with pytest.raises(InputError, match=r"over 2 MB \(cell 2 alone 2\.1 MB\)"):
        execute(source, out, {}, here / "failed.ipynb")
    assert not out.exists()


def test_missing_notebook_lists_the_others(here):
    write_notebook(here / "notebooks/a.ipynb")
    with pytest.raises(InputError, match="there are a"):
        execute(here / "notebooks/b.ipynb", here / "out.ipynb", {}, here / "failed.ipynb")


def test_paths_addresses_and_random_names_are_replaced():
    scrub = Scrubber({"/home/me/repo": ".", "/home/me": "~"})
    assert scrub("/home/me/repo/data /home/me/x /home/means /home/me") == "./data ~/x /home/means ~"
    assert scrub("<A object at 0x7f00aa11bb22>") == "<A object>"
    styled = '<style>#T_0a1b2_row0 {} #T_ffff0_row0 {}</style><table id="T_0a1b2">'
    numbered = '<style>#T_00000_row0 {} #T_00001_row0 {}</style><table id="T_00000">'
    assert scrub(styled) == numbered
    assert scrub("0a1b2c3d-0000-4000-8000-0123456789ab") == "id-00002"


def cleaned_outputs(*outputs):
    cell = {"cell_type": "code", "metadata": {"papermill": {}}, "source": "", "execution_count": 1, "id": "x"}
    book = {"cells": [cell | {"outputs": list(outputs)}], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    return clean(book, {"/tmp": "<temporary>"})["cells"][0]


def test_streams_are_joined_and_progress_bars_left_out():
    def stream(name, text):
        return {"output_type": "stream", "name": name, "text": text}

    pieces = [
        stream("stderr", "10%\ra\r"),
        stream("stderr", "b: 50%|##  | 1/2 [00:01<00:01]\rc\n"),
        stream("stdout", "x\n"),
        {"output_type": "display_data", "data": {}, "metadata": {}},
        stream("stderr", "b: 50%|##  | 1/2 [00:01<00:01, 2it/s]\n"),
    ]
    merged = cleaned_outputs(*pieces)["outputs"]
    assert [(o["output_type"], o.get("text")) for o in merged] == [
        ("stream", "c\n"),
        ("stream", "x\n"),
        ("display_data", None),
    ]


def test_images_are_left_alone():
    data = {"image/png": "/tmp at 0x123456789", "text/plain": "/tmp at 0x123456789"}
    cell = cleaned_outputs({"output_type": "display_data", "data": data, "metadata": {"x": 1}})
    assert cell["outputs"][0]["data"] == {"image/png": "/tmp at 0x123456789", "text/plain": "<temporary>"}
    assert cell["outputs"][0]["metadata"] == cell["metadata"] == {}
