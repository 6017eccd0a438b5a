"""The stages of dvc.yaml as a graph: what needs what, what comes first, what is already done."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib.core.errors import InputError


@dataclass
class Step:
    """One stage of dvc.yaml (one item of a matrix)."""

    name: str
    order: int  # place in dvc.yaml
    needs: set[str]  # stages that must be done before
    cores: str = "1"  # a number, "half" or "all"
    paper: str = ""
    height: int = 0  # stages on the longest way from here to the end

    def width(self, jobs: int) -> int:
        """How many of ``jobs`` cores the stage takes."""
        wanted = {"all": jobs, "half": jobs // 2}.get(self.cores)
        return max(1, min(int(self.cores) if wanted is None else wanted, jobs))


def available_cores() -> int:
    """Cores that this process may use (fewer than the machine has, in a container)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def stages() -> list[Any]:
    """DVC's stages of dvc.yaml, in the order of the file, every item of a matrix its own.

    Raises:
        InputError: DVC cannot read dvc.yaml or params.yaml.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            repo.index.check_graph()
            return list(repo.index.stages)
    except DvcException as error:
        reason: BaseException = error
        while reason.__cause__ is not None and isinstance(reason.__cause__, DvcException):
            reason = reason.__cause__
        raise InputError("dvc.yaml", f"the pipeline cannot be read: {reason}") from error


def read_graph() -> dict[str, Step]:
    """The stages of dvc.yaml and what each needs, from DVC itself."""
    found = stages()
    graph = found[0].repo.index.graph if found else {}
    steps = {}
    for order, stage in enumerate(found):
        meta = stage.meta or {}
        steps[stage.addressing] = Step(
            name=stage.addressing,
            order=order,
            needs={other.addressing for other in graph.successors(stage)},
            cores=str(meta.get("cores", 1)),
            paper=str(meta.get("paper", "")),
        )
    return with_heights(steps)


def with_heights(steps: dict[str, Step]) -> dict[str, Step]:
    """Fill ``height``: a stage on a long chain goes first."""
    users: dict[str, list[str]] = {name: [] for name in steps}
    for step in steps.values():
        for need in step.needs:
            users[need].append(step.name)

    def height(name: str) -> int:
        if not steps[name].height:
            steps[name].height = 1 + max((height(user) for user in users[name]), default=0)
        return steps[name].height

    for name in steps:
        height(name)
    return steps


def select(steps: dict[str, Step], targets: list[str], paper: str = "") -> dict[str, Step]:
    """The named stages (a matrix's name means all its items) or those of a paper, with all that they need.

    Raises:
        SystemExit: nothing of that name.
    """
    wanted = {name for name, step in steps.items() if paper and step.paper == paper}
    if paper and not wanted:
        known = sorted({step.paper for step in steps.values()} - {""})
        raise SystemExit(f"no stage belongs to paper {paper!r}; there are {', '.join(known)}")
    for target in targets:
        found = {name for name in steps if name == target or name.split("@")[0] == target}
        if not found:
            raise SystemExit(f"no stage {target!r}; there are {', '.join(steps)}")
        wanted |= found
    if not targets and not paper:
        return steps
    queue = list(wanted)
    while queue:
        for need in steps[queue.pop()].needs - wanted:
            wanted.add(need)
            queue.append(need)
    return {name: step for name, step in steps.items() if name in wanted}


def choose(waiting: list[Step], done: set[str], free: int, jobs: int, chosen: set[str]) -> Step | None:
    """The next stage to start on ``free`` cores, or None: of those that fit, the one with the longest chain behind it.

    ``chosen``: the stages of this run; others that a stage needs count as done.
    """
    ready = [step for step in waiting if step.needs & chosen <= done]
    ready.sort(key=lambda step: (-step.height, step.order))
    for step in ready:
        if step.width(jobs) <= free:
            return step
    return None


def up_to_date(steps: dict[str, Step]) -> set[str]:
    """Stages that DVC finds unchanged and that need no changed stage: there is nothing to start for them."""
    from dvc.repo import Repo

    with Repo(_wait_for_lock=True) as repo:  # type: ignore[no-untyped-call]
        stale = set(repo.status(list(steps)))
    for name in sorted(steps, key=lambda n: -steps[n].height):  # what a stage needs is higher than the stage
        if steps[name].needs & stale:
            stale.add(name)
    return set(steps) - stale


def sort_lock(path: str, steps: dict[str, Step]) -> None:
    """dvc.lock in the order of dvc.yaml, whichever stage finished first: a diff then shows what changed."""
    from dvc.utils.serialize import modify_yaml

    if not Path(path).is_file():
        return
    with modify_yaml(path) as lock:
        stages = lock.get("stages", {})
        order = sorted(stages, key=lambda name: (steps[name].order if name in steps else len(steps), name))
        if order != list(stages):
            lock["stages"] = {name: stages[name] for name in order}
