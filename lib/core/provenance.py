"""What made a result: hardware, commit, package versions, and all of it as a line. No dates: results repeat exactly."""

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lib.core.code import ROOT

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
    # the pipeline itself rewrites results, dvc.lock and params.yaml; they say nothing about the code
    changed = _git(
        "status", "--porcelain", "--untracked-files=no", "--", ".", ":!results", ":!dvc.lock", ":!params.yaml"
    )
    return {"commit": number, "dirty": bool(changed)}


def hardware() -> dict[str, Any]:
    """CPU, cores, memory in GiB, GPU if torch sees one."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    except OSError:
        pass  # not Linux
    facts: dict[str, Any] = {"cpu": model, "cores": os.cpu_count(), "gpu": None}
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        facts["memory_gib"] = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30)
    try:
        import torch

        if torch.cuda.is_available():
            facts["gpu"] = torch.cuda.get_device_name(0)
    except ImportError:
        pass
    return facts


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
