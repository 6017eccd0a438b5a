"""Execute a notebook with parameters and keep a clean copy.

    python -m lib.pipeline.notebooks 20_siamese_table1 -p profile quick
    python -m lib.pipeline.notebooks 03_train --name 03_train-sv-s0 -p run sv -p seed 0

Reads notebooks/<notebook>.ipynb and writes results/notebooks/<profile>/<name>.ipynb in one step, without papermill's
metadata, timestamps, memory addresses or any path of the machine, and never larger than two megabytes. The kernel is
always this Python, whatever kernels the user has installed. A notebook that fails is kept, with its error, under
data/<profile>/logs/.
"""

import argparse
import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from lib.core.errors import InputError
from lib.core.files import atomic_write_text
from lib.core.params import load_params
from lib.renderers.rasterize import use

LIMIT_BYTES = 2_000_000
KERNEL = "this-python"
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]{6,}")
_BAR = re.compile(r"\d+%\|.*\|.*\[\d+:\d\d")
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def machine_paths() -> dict[str, str]:
    """Paths that must not be stored, and what stands for them; the longest first."""
    pairs = {str(Path.cwd()): ".", sys.prefix: "<environment>", sys.base_prefix: "<python>"}
    pairs |= {tempfile.gettempdir(): "<temporary>", str(Path.home()): "~"}
    pairs = {path: name for path, name in pairs.items() if len(path) > 1}
    return dict(sorted(pairs.items(), key=lambda pair: -len(pair[0])))


def scrub(text: str, paths: dict[str, str]) -> str:
    """Text without machine paths and memory addresses."""
    for path, name in paths.items():
        # whole path components only: /root must not eat the start of /rootless
        text = re.sub(re.escape(path) + r"(?![\w.-])", name, text)
    return _ADDRESS.sub("", text)


def overwrite(text: str) -> str:
    """What a terminal shows after carriage returns: of a progress bar, its last state."""
    return "\n".join(line.rstrip("\r").rsplit("\r", 1)[-1] for line in text.split("\n"))


def merge_streams(outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Neighbouring pieces of one stream as one piece, progress bars left out (they hold times)."""
    merged: list[dict[str, Any]] = []
    for output in outputs:
        if output["output_type"] != "stream":
            merged.append(output)
            continue
        text = output["text"] if isinstance(output["text"], str) else "".join(output["text"])
        if merged and merged[-1].get("name") == output["name"]:
            merged[-1]["text"] += text
        else:
            merged.append({"output_type": "stream", "name": output["name"], "text": text})
    for output in merged:
        if output["output_type"] == "stream":
            lines = overwrite(output["text"]).split("\n")
            kept = [line for line in lines if not _BAR.search(line)]
            output["text"] = "\n".join(kept) if any(map(str.strip, kept)) else ""
    return [output for output in merged if output["output_type"] != "stream" or output["text"]]


def _scrub_all(value: Any, paths: dict[str, str]) -> Any:
    if isinstance(value, str):
        return scrub(value, paths)
    if isinstance(value, list):
        return [_scrub_all(item, paths) for item in value]
    if isinstance(value, dict):
        return {key: item if key.startswith("image/") else _scrub_all(item, paths) for key, item in value.items()}
    return value


def clean(notebook: dict[str, Any], paths: dict[str, str]) -> dict[str, Any]:
    """A copy of an executed notebook (nbformat 4 JSON) with nothing in it that another machine or day would change."""
    cells = []
    for number, cell in enumerate(notebook["cells"]):
        cell = dict(cell, id=f"cell-{number:02d}")
        tags = cell.get("metadata", {}).get("tags")
        cell["metadata"] = {"tags": tags} if tags else {}
        outputs = []
        for output in merge_streams([dict(output) for output in cell.get("outputs", ())]):
            if "metadata" in output:
                output["metadata"] = {}
            outputs.append(_scrub_all(output, paths))
        if "outputs" in cell:
            cell["outputs"] = outputs
        cell["source"] = _scrub_all(cell["source"], paths)
        cells.append(cell)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python", "file_extension": ".py"}}
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def execute(source: Path, out: Path, parameters: dict[str, Any], failed: Path) -> None:
    """Execute ``source`` with ``parameters`` in the repository's top folder and write its clean copy to ``out``.

    Raises:
        InputError: no such notebook, a cell failed, or the copy is too large to keep.
    """
    if not source.is_file():
        known = ", ".join(sorted(path.stem for path in source.parent.glob("*.ipynb"))) or "none"
        raise InputError(source, f"no such notebook; there are {known}")
    import papermill
    from papermill.exceptions import PapermillExecutionError

    paths = machine_paths()
    with tempfile.TemporaryDirectory() as scratch:
        _use_this_python(Path(scratch))
        executed = Path(scratch) / "executed.ipynb"
        problem: PapermillExecutionError | None = None
        try:
            papermill.execute_notebook(
                str(source),
                str(executed),
                parameters=parameters,
                kernel_name=KERNEL,
                language="python",
                cwd=str(Path.cwd()),
                progress_bar=False,
                stdout_file=sys.stdout,
                stderr_file=sys.stderr,
                request_save_on_cell_execute=False,
            )
        except PapermillExecutionError as error:
            problem = error
        notebook = clean(json.loads(executed.read_text(encoding="utf-8")), paths)
    text = json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    if problem is not None:
        atomic_write_text(failed, text)
        trace = _ANSI.sub("", "\n".join(problem.traceback[-12:]))
        what = f"cell {problem.exec_count} failed: {problem.ename}: {problem.evalue}\n{trace}"
        raise InputError(source, what, f"the whole notebook is in {failed}")
    if len(text.encode()) > LIMIT_BYTES:
        sizes = [len(json.dumps(cell)) / 1e6 for cell in notebook["cells"]]
        largest = max(range(len(sizes)), key=sizes.__getitem__)
        total, limit = len(text.encode()) / 1e6, LIMIT_BYTES / 1e6
        raise InputError(
            out,
            f"{total:.1f} MB, over {limit:.0f} MB (cell {largest} alone {sizes[largest]:.1f} MB)",
            "fewer or smaller figures; never embed a JavaScript library",
        )
    atomic_write_text(out, text)


def _use_this_python(scratch: Path) -> None:
    """A kernel of this interpreter that no installed kernel can shadow, without the user's IPython settings."""
    folder = scratch / "jupyter" / "kernels" / KERNEL
    folder.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=ERROR"]
    spec = {"argv": command, "display_name": "Python 3", "language": "python"}
    (folder / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")
    here = str(Path.cwd())
    os.environ["JUPYTER_PATH"] = os.pathsep.join(
        filter(None, (str(scratch / "jupyter"), os.environ.get("JUPYTER_PATH")))
    )
    os.environ["IPYTHONDIR"] = str(scratch / "ipython")
    os.environ["JUPYTER_RUNTIME_DIR"] = str(scratch / "runtime")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"  # figures belong into the notebook


def main(arguments: list[str] | None = None) -> int:
    """Command line; 0 when the notebook ran to its end."""
    import yaml

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebook", help="its name without .ipynb")
    parser.add_argument("--name", default="", help="name of the executed copy (default: the notebook's)")
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), dest="parameters")
    options = parser.parse_args(arguments)
    try:
        params = load_params()
        use(params)  # the notebook's process inherits it
        profile = params["profile"]
        name = options.name or options.notebook
        parameters = {key: yaml.safe_load(value) for key, value in options.parameters}
        out = Path("results/notebooks") / profile / f"{name}.ipynb"
        failed = Path("data") / profile / "logs" / f"{name}.failed.ipynb"
        execute(Path("notebooks") / f"{options.notebook}.ipynb", out, parameters, failed)
    except InputError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{out}: {out.stat().st_size / 1e3:.0f} kB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
