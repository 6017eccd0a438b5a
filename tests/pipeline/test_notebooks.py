"""The notebook runner: parameters arrive, the copy is clean, a failure is explained and leaves the old result."""

import json

import nbformat
import pytest

from lib.core.errors import InputError
from lib.pipeline.notebooks import clean, execute, merge_streams, overwrite, scrub

SCRIBBLE = """
import os, sys
from tqdm import tqdm
for i in tqdm(range(3)):
    pass
print("run", run, os.getcwd(), sys.executable, os.path.expanduser("~"))
object()
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
    book = json.loads(content)
    nbformat.validate(nbformat.from_dict(book))
    outputs = [output for cell in book["cells"] for output in cell.get("outputs", ())]
    text = "".join(output.get("text", "") for output in outputs)
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


def test_paths_are_replaced_as_whole_components():
    paths = {"/home/me/repo": ".", "/home/me": "~"}
    assert scrub("/home/me/repo/data /home/me/x /home/means /home/me", paths) == "./data ~/x /home/means ~"
    assert scrub("<A object at 0x7f00aa11bb22>", {}) == "<A object>"


def test_terminal_tricks():
    assert overwrite("10%\r20%\rdone\nnext\r\n") == "done\nnext\n"
    pieces = [
        {"output_type": "stream", "name": "stderr", "text": "a\r"},
        {"output_type": "stream", "name": "stderr", "text": ["b: 50%|##  | 1/2 [00:01<00:01]\r", "c\n"]},
        {"output_type": "stream", "name": "stdout", "text": "x\n"},
        {"output_type": "display_data", "data": {}, "metadata": {}},
    ]
    merged = merge_streams(pieces)
    assert [(o["output_type"], o.get("text")) for o in merged] == [
        ("stream", "c\n"),
        ("stream", "x\n"),
        ("display_data", None),
    ]
    bar = [{"output_type": "stream", "name": "stderr", "text": "b: 50%|##  | 1/2 [00:01<00:01, 2it/s]\n"}]
    assert merge_streams(bar) == []


def test_images_are_left_alone():
    data = {"image/png": "/tmp at 0x123456789", "text/plain": "/tmp at 0x123456789"}
    cell = {"cell_type": "code", "metadata": {"papermill": {}}, "source": "", "execution_count": 1}
    book = {"cells": [cell | {"outputs": [{"output_type": "display_data", "data": data, "metadata": {}}]}]}
    cleaned = clean(book, {"/tmp": "<temporary>"})["cells"][0]
    assert cleaned["outputs"][0]["data"] == {"image/png": "/tmp at 0x123456789", "text/plain": "<temporary>"}
    assert cleaned["metadata"] == {}
