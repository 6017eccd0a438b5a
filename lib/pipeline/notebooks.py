"""Execute a notebook with parameters and keep a clean copy.

    python -m lib.pipeline.notebooks 20_siamese_table1 -p profile quick
    python -m lib.pipeline.notebooks 03_train --name 03_train-sv-s0 -p run sv -p seed 0

Reads notebooks/<notebook>.ipynb and writes results/notebooks/<profile>/<name>.ipynb in one step, without papermill's
metadata, timestamps, memory addresses or any path of the machine, and never larger than two megabytes. The kernel is
always this Python, whatever kernels the user has installed. A notebook that fails is kept, with its error, under
data/<profile>/logs/.
"""

import json
import os
import re
import sys
import tempfile
from argparse import Namespace
from pathlib import Path
from typing import Any

import nbformat

from lib.core.code import ROOT
from lib.core.command import argument, command
from lib.core.errors import InputError
from lib.core.files import atomic_write_text
from lib.renderers.rasterize import use

LIMIT_BYTES = 2_000_000
KERNEL = "this-python"
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]{6,}")
_RANDOM = re.compile(
    r"\bT_[0-9a-f]{5}(?=[_\"\s])|\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"
)  # pandas Styler, uuid4
_BAR = re.compile(r"\d+%\|.*\|.*\[\d+:\d\d")
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def machine_paths() -> dict[str, str]:
    """Paths that must not be stored, and what stands for them; the longest first."""
    pairs = {sys.prefix: "<environment>", sys.base_prefix: "<python>", str(Path.home()): "~"}
    pairs |= {tempfile.gettempdir(): "<temporary>", str(ROOT): ".", str(Path.cwd()): "."}
    return dict(sorted((pair for pair in pairs.items() if len(pair[0]) > 1), key=lambda pair: -len(pair[0])))


class Scrubber:
    """Takes out of texts what another machine or another day would change: paths, memory addresses, random names."""

    def __init__(self, paths: dict[str, str]) -> None:
        # whole path components only: /root must not eat the start of /rootless
        self.paths = [(re.compile(re.escape(path) + r"(?![\w.-])"), name) for path, name in paths.items()]
        self.names: dict[str, str] = {}  # random names are numbered as they come

    def __call__(self, value: Any) -> Any:
        """The same structure with clean texts; images are left alone."""
        if isinstance(value, dict):
            return {key: item if key.startswith("image/") else self(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self(item) for item in value]
        if isinstance(value, str):
            for path, name in self.paths:
                value = path.sub(name, value)
            return _RANDOM.sub(self._numbered, _ADDRESS.sub("", value))
        return value

    def _numbered(self, found: re.Match[str]) -> str:
        return self.names.setdefault(found[0], f"{'T_' if found[0].startswith('T_') else 'id-'}{len(self.names):05d}")


def clean(notebook: Any, paths: dict[str, str]) -> Any:
    """A copy of an executed notebook with nothing in it that another machine or another day would change."""
    from nbconvert.preprocessors import CoalesceStreamsPreprocessor

    notebook, _ = CoalesceStreamsPreprocessor().preprocess(nbformat.from_dict(notebook), {})
    scrub = Scrubber(paths)
    cells = []
    for number, cell in enumerate(notebook["cells"]):
        tags = cell["metadata"].get("tags")
        cell = {**cell, "id": f"cell-{number:02d}", "metadata": {"tags": tags} if tags else {}}
        for output in cell.get("outputs", ()):
            if "metadata" in output:
                output["metadata"] = {}
            if output["output_type"] == "stream":  # progress bars hold times
                lines = output["text"].replace("\r", "").split("\n")
                output["text"] = "\n".join(line for line in lines if not _BAR.search(line))
        if "outputs" in cell:
            cell["outputs"] = [output for output in cell["outputs"] if output.get("text", "x").strip()]
        cells.append(scrub(cell))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python", "file_extension": ".py"}}
    return nbformat.from_dict({"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5})


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
        notebook = clean(nbformat.read(executed, 4), paths)
    text = nbformat.writes(notebook) + "\n"
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


@command(
    __doc__,
    argument("notebook", help="its name without .ipynb"),
    argument("--name", default="", help="name of the executed copy (default: the notebook's)"),
    argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), dest="parameters"),
    params=True,
)
def main(options: Namespace) -> None:
    """Command line; 0 when the notebook ran to its end."""
    import yaml

    use(options.params)  # the notebook's process inherits it
    parameters = {key: yaml.safe_load(value) for key, value in options.parameters}
    profile, name = parameters.get("profile", options.params["profile"]), options.name or options.notebook
    out = Path("results/notebooks") / profile / f"{name}.ipynb"
    failed = Path("data") / profile / "logs" / f"{name}.failed.ipynb"
    execute(Path("notebooks") / f"{options.notebook}.ipynb", out, parameters, failed)
    print(f"{out}: {out.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    raise SystemExit(main())
