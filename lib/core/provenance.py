"""What made a result: hardware, commit, package versions, and all of it as a line. No dates: results repeat exactly."""

import os
import platform
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lib.core.code import ROOT

CPUINFO = Path("/proc/cpuinfo")
INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "sve", "bf16")
"""Those that decide over the order of sums, and over training in bfloat16 or float32 (`lib.engine.device.bf16_is_fast`)."""
PACKAGES = ("torch", "torchvision", "numpy", "scipy", "numba", "anny", "small_gicp", "pandas")


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def commit() -> dict[str, Any]:
    """The checked-out commit, and whether tracked files other than results differ from it; COMMIT names a copy's."""
    number = _git("rev-parse", "HEAD")
    if number is None:
        return {"commit": os.environ.get("COMMIT", "unknown (not a git checkout)"), "dirty": None}
    # the pipeline itself rewrites these; they say nothing about the code
    own = (":!results", ":!README.md", ":!dvc.lock", ":!params.yaml")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", *own)
    return {"commit": number, "dirty": bool(changed)}


def hardware() -> dict[str, Any]:
    """CPU with its numbers, INSTRUCTIONS and what torch makes of them; cores, memory in GiB, GPU if torch sees one."""
    lines = CPUINFO.read_text(encoding="utf-8").splitlines() if CPUINFO.is_file() else []  # Linux has it
    info = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in reversed(lines))}
    flags = (info.get("flags") or info.get("Features", "")).split()
    numbers = [f"{key.removeprefix('cpu ')} {info[key]}" for key in ("cpu family", "model", "CPU part") if key in info]
    known = [*numbers, *(name for name in INSTRUCTIONS if name in flags)]
    facts: dict[str, Any] = {"cores": os.cpu_count(), "gpu": None}
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        facts["memory_gib"] = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30)
    with suppress(ImportError):
        import torch

        known.append(f"torch {torch.backends.cpu.get_cpu_capability()}")
        if torch.cuda.is_available():
            facts["gpu"] = torch.cuda.get_device_name(0)
    name = info.get("model name") or platform.processor() or platform.machine()
    return {"cpu": f"{name} ({', '.join(known)})" if known else name, **facts}


def packages(*further: str) -> dict[str, str]:
    """Versions of Python, of what the numbers depend on, and of `further` packages; "absent" for what is not installed."""
    found = {"python": platform.python_version()}
    for name in (*PACKAGES, *further):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            # a package that was built in place has no metadata; once imported it may tell its version itself
            found[name] = getattr(sys.modules.get(name), "__version__", "absent")
    return found


def origin(*further: str) -> dict[str, Any]:
    """What every result says of its making: `hardware`, `commit`, `dirty` and `packages`, these with `further` ones."""
    return {"hardware": hardware(), **commit(), "packages": packages(*further)}


def _left_out(facts: dict[str, Any]) -> str:
    """Subjects that are not in the table, and why; nothing when all are."""
    reasons: dict[str, list[str]] = {}
    for subject, reason in (facts.get("left_out") or {}).items():
        reasons.setdefault(reason, []).append(subject)
    parts = [f"{', '.join(subjects)} ({reason})" for reason, subjects in reasons.items()]
    return f", left out: {'; '.join(parts)}" if parts else ""


def footer(facts: dict[str, Any], counted: str = "") -> str:
    """The provenance as a line of Markdown under a table; ``counted`` stands there instead of how many subjects and seeds."""
    seeds = "" if counted else f"; seeds {', '.join(map(str, facts['seeds']))}"
    counted = (counted or f"{facts['subjects']} subjects") + _left_out(facts) + seeds
    machine = facts["hardware"]
    device = machine["gpu"] or f"{machine['cpu']}, {machine['cores']} cores, no GPU"
    state = {True: " with uncommitted changes", False: "", None: ""}[facts["dirty"]]
    versions = ", ".join(f"{name} {facts['packages'][name]}" for name in ("python", "torch", "numpy", "scipy"))
    return (
        f"*Profile `{facts['profile']}`; data: {facts['data']}; {counted}; "
        f"{device}; commit `{facts['commit'][:12]}`{state}; {versions}.*"
    )
