"""`make gpu`: all that a card can tell about this repository, within so many minutes.

    python -m lib.bench.gpu [--minutes 8] [--out results] [--device cpu --tiny]

Parts: checks (the card against the CPU; data are made on the cores meanwhile), speed, profile (every paper trained and evaluated
in the time that is left). Each is a process that keeps a file of its own whole; what is over time is killed, what its file held
stays. After each part <out>/benchmarks/gpu.json and gpu.md and <out>/<paper>/gpu/table.csv are written. Scratch: out/gpu/.
"""

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import yaml

from lib.bench.gpu.jobs import CUT_SHORT, RULE, read
from lib.core.code import ROOT
from lib.core.command import argument, command
from lib.core.errors import InputError, Interrupted
from lib.core.files import atomic_write_json, atomic_write_text, write_csv
from lib.core.params import PROFILE_FOLDER, load_params

SCRATCH = Path("out/gpu")
PARTS = {"checks": (0.18, 20.0), "speed": (0.36, 20.0), "profile": (0.46, 150.0)}
"""Part -> its share of the minutes, and the seconds on a card below which it is not begun."""
ENOUGH_GIB, MARGIN_S, SHOWN = 8.0, 6.0, 40


class Keeper:
    """Starts parts, ends them in time, and keeps the results whole."""

    def __init__(self, options: Namespace) -> None:
        self.options, self.began = options, time.time()
        self.end = self.began + 60 * options.minutes - min(MARGIN_S, 30 * options.minutes)  # then what hangs is killed
        self.running: dict[str, subprocess.Popen] = {}
        self.states: dict[str, str] = dict.fromkeys(PARTS, "not run")
        self.notes = ["tiny: no number here means anything"] if options.tiny else []

    def command(self, module: str) -> list[str]:
        """How a part's module is run."""
        return [sys.executable, "-m", f"lib.bench.gpu.{module}"]

    def start(self, name: str, until: float) -> None:
        """Begin a part, in a process group of its own, which is to end by itself at `until` (s since 1970)."""
        device, module = self.options.device, "profile" if name == "data" else name
        words = [*self.command(module), "--out", f"{name}.json", "--device", device, "--until", f"{until:.1f}"]
        words += ["--tiny"] * self.options.tiny + ["--data"] * (name == "data")
        if shutil.which("timeout"):  # in case that this process is killed
            words = ["timeout", "-k", "2", f"{max(1.0, until - time.time() + 4):.1f}", *words]
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        env = os.environ | {"PYTHONPATH": path, "QUIET": "1"}
        env |= {"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" or name == "data" else {}
        with (SCRATCH / f"{name}.log").open("w") as log:
            given: Any = {"cwd": SCRATCH, "env": env, "stdout": log, "stderr": log, "start_new_session": True}
            self.running[name] = subprocess.Popen(words, **given)
        self.states[name] = "running"
        self.say(f"{name}, until {until - self.began:.0f} s")

    def wait(self, name: str, until: float, end: bool = True) -> None:
        """Until the part has ended or it is `until`, when it is ended (or goes on); then the results are written."""
        process, late = self.running[name], "cut short by the clock"
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.1, until + 1 - time.time()))
        code = process.poll()
        if code is None and not end:
            return
        lines = (SCRATCH / f"{name}.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        failed = f"failed (status {code}): {''.join(lines[-1:])[:300]}"
        self.states[name] = {0: "done", None: late, CUT_SHORT: late}.get(code, failed)
        self.kill(name)
        if name != "card":
            self.write()

    def kill(self, name: str) -> None:
        """End a part with all that it has started; every file of it is whole at any time."""
        process = self.running.pop(name)
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(1.5)

    def say(self, words: str) -> None:
        """A line with the seconds so far."""
        print(f"[{time.time() - self.began:5.0f} s] {words}", flush=True)

    def walk(self) -> None:
        """All parts that fit. Raises InputError where a card is wanted and none can be used."""
        until = min(self.began + 120, self.end)  # torch from a cold disk takes a minute
        self.start("card", until)
        self.wait("card", until)
        card = self.read("card").get("card", {"problem": f"asking for the card {self.states['card']}"})
        if self.options.device == "cuda" and "problem" in card:
            advice = "`make gpu TINY=1` walks through everything on the CPU"
            if "too old" in card["problem"]:
                advice = f"a driver for CUDA {card['cuda_of_torch']}, or a torch built for an older CUDA; {advice}"
            raise InputError("no usable card", card["problem"], advice)
        if card.get("memory_gib", ENOUGH_GIB) < ENOUGH_GIB:
            self.notes.append(f"{card['memory_gib']} GiB of card memory: what needs more fails, run by run")
        ends = self.fitting()
        for old in self.options.out.glob("*/gpu/table.csv") if ends else ():
            old.unlink()  # the new gpu.json does not tell what made it
        ready = max([ends[name] for name in ends if name != "profile"], default=0.5 * (time.time() + self.end))
        if {"speed", "profile"} & set(ends) and Path("data/population.npz").is_file():
            self.start("data", ready)
        for name, until in ends.items():
            if "data" in self.running and name != "checks":  # steps are timed on them, and on idle cores
                self.wait("data", ready if name == "profile" else 0.5 * (time.time() + until), end=name == "profile")
            if name == "profile" and self.states["data"] != "done":
                self.states[name] = f"left out: data {self.states['data']}"
            else:
                self.start(name, until)
                self.wait(name, until)

    def fitting(self) -> dict[str, float]:
        """When each part that fits must have ended (s since 1970); the others' states say what they lack."""
        left, fits = self.end - time.time(), list[str]()
        for name in PARTS:
            wants = 0.0 if self.options.tiny else sum(PARTS[part][1] for part in (*fits, name))
            if name == "profile" and not Path("data/population.npz").is_file():
                self.states[name] = "left out: no data/population.npz, which is made with the face model; no data"
            elif wants > left:
                self.states[name] = f"left out: wants {wants / 60 + 0.2:.1f} minutes in all"
            else:
                fits.append(name)
        self.say(f"{', '.join(fits) or 'nothing'} fits into {self.options.minutes:g} minutes")
        weights = [PARTS[name][0] for name in fits]
        return {n: self.end - left * sum(weights[i + 1 :]) / sum(weights) for i, n in enumerate(fits)}

    def read(self, name: str) -> dict[str, Any]:
        """What a part has written; nothing where there is none, or not all of it."""
        return read(SCRATCH / f"{name}.json")

    def write(self) -> None:
        """gpu.json, gpu.md and a table a paper, from what all parts have written so far."""
        found, out, asked = {name: self.read(name) for name in ("data", *PARTS)}, self.options.out, self.options
        rows = [row for part in found.values() for row in part.get("rows", ())]
        rows += [] if asked.tiny else paper_profile(rows)
        about = self.read("card")
        face = hashlib.sha256(Path("data/face_model.npz").read_bytes()).hexdigest()
        made = {**about.get("card", {}), "device": asked.device, "tiny": asked.tiny, "face_model_sha256": face}
        made |= {"minutes_asked": asked.minutes, "minutes_spent": round((time.time() - self.began) / 60, 2)}
        notes = [*self.notes, *(f"{name}: {note}" for name, part in found.items() for note in part.get("notes", ()))]
        result = {"made": made, "origin": about.get("origin"), "parts": self.states, "rule": RULE}
        result |= {"notes": notes, "rows": rows}
        atomic_write_json(out / "benchmarks/gpu.json", result)
        atomic_write_text(out / "benchmarks/gpu.md", page(result))
        methods = [row for row in rows if row["kind"] == "method"]
        for paper in dict.fromkeys(row["paper"] for row in methods):
            own = [{k: v for k, v in r.items() if k not in ("kind", "paper")} for r in methods if r["paper"] == paper]
            write_csv(out / paper / "gpu/table.csv", own, list(dict.fromkeys(key for row in own for key in row)))


def paper_profile(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row a run: hours that its training takes in the paper profile, from steps/s measured here; and one for each paper."""
    params, found = load_params(PROFILE_FOLDER / "paper.yaml"), []
    for row in (row for row in rows if row["kind"] == "train" and row.get("steps_per_s")):
        settings = params.get(row["paper"], {})
        if own := settings.get("runs", {}).get(row["run"]):
            steps = (settings["loop"] | own.get("loop", {}))["steps"] * len(settings["seeds"])
            found.append([row["paper"], row["run"], steps, steps / row["steps_per_s"] / 3600])
    for paper in dict.fromkeys(line[0] for line in found):
        found.append([paper, "all", *(sum(line[i] for line in found if line[0] == paper) for i in (2, 3))])
    keys = ("paper", "run", "steps_of_all_seeds", "hours_of_training")
    return [{"kind": "paper_profile"} | dict(zip(keys, (*line[:3], round(line[3], 3)), strict=True)) for line in found]


def page(result: dict[str, Any]) -> str:
    """The result as Markdown: what made it, parts, a table a kind of rows; the rest is in the JSON."""
    checks = [row for row in result["rows"] if row["kind"] == "check"]
    failed = [row for row in checks if not row.get("ok")]
    tables: dict[str, list[dict[str, Any]]] = {}
    for row in (*failed, *(row for row in result["rows"] if row["kind"] != "check")):
        title = row["kind"].replace("_", " ")
        tables.setdefault(f"{title} {row['paper']}" if title == "method" else title, []).append(row)
    lines = ["# `make gpu`\n", "; ".join(f"{key} {value}" for key, value in result["made"].items()) + ".\n"]
    lines += [f"- {name}: {state}" for name, state in result["parts"].items()]
    lines += [f"- {note}" for note in result["notes"]]
    lines += [f"\n{len(checks) - len(failed)} of {len(checks)} checks passed. {result['rule']}"]
    for title, rows in tables.items():
        keys = dict.fromkeys(k for row in rows[:SHOWN] for k, v in row.items() if not isinstance(v, dict | list))
        head = [key for key in keys if key not in ("kind", "tiny") and not key.endswith(" n")]
        cells = [["" if row.get(key) is None else row[key] for key in head] for row in rows[:SHOWN]]
        lines += [f"\n## {title}" + f", the first {SHOWN} of {len(rows)}" * (len(rows) > SHOWN) + "\n"]
        for line in (head, ["---"] * len(head), *cells):
            lines.append("| " + " | ".join(f"{v:.4g}" if isinstance(v, float) else str(v) for v in line) + " |")
    return "\n".join(lines) + "\n"


def prepare(tiny: bool) -> None:
    """The scratch workspace, emptied: params.yaml of the gpu profile (tiny: smoke's), and links to the face model."""
    shutil.rmtree(SCRATCH, ignore_errors=True)
    (SCRATCH / "data").mkdir(parents=True)
    params = load_params(PROFILE_FOLDER / ("smoke.yaml" if tiny else "gpu.yaml")) | {
        "profile": "gpu",
        "material": "gpu",
    }
    for settings in params["data"].values() if tiny else ():
        settings |= {key: max(4, value // 3) for key, value in settings.items() if key in ("n_subjects", "n_faces")}
    atomic_write_text(SCRATCH / "params.yaml", yaml.safe_dump(params))
    for file in (Path("data/face_model.npz"), Path("data/population.npz")):
        if file.is_file():
            (SCRATCH / file).symlink_to(file.resolve())


@command(
    __doc__,
    argument("--minutes", type=float, default=8.0, help="default: 8"),
    argument("--out", type=Path, help="default: results, with --tiny out/tiny"),
    argument("--device", choices=("cuda", "cpu"), default="cuda"),
    argument("--tiny", action="store_true", help="sizes that prove only that everything runs"),
)
def main(options: Namespace) -> int:
    """Run the parts; 1 when one failed."""
    if not options.minutes > 0:
        raise InputError("MINUTES", f"more than 0, found {options.minutes:g}", "8 show everything, 1 the first parts")
    if not Path("data/face_model.npz").is_file():
        advice = "`make repro` or `python -m lib.morphable.build` makes it where anny is: copy it, and population.npz"
        raise InputError("data/face_model.npz", "no such file", advice)
    options.out = options.out or Path("out/tiny" if options.tiny else "results")
    prepare(options.tiny)
    keeper = Keeper(options)

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # is to be what Ctrl-C is
    try:
        keeper.walk()
    except KeyboardInterrupt:
        raise Interrupted(f"stopped; what was measured is in {options.out}/benchmarks") from None
    finally:
        for name in list(keeper.running):
            keeper.kill(name)
            keeper.states[name] = "stopped"
        if "problem" not in keeper.read("card").get("card", {"problem": ""}):
            keeper.write()
    print((options.out / "benchmarks/gpu.md").read_text(encoding="utf-8"))
    return int(any(state.startswith("failed") for state in keeper.states.values()))


if __name__ == "__main__":
    raise SystemExit(main())
