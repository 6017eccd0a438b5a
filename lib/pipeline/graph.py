"""The stages of dvc.yaml as a graph: what needs what, what comes first, what is already done."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache, partial
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
    label: str = ""  # how it is called on screen and in timings, where DVC's name says less
    remote: str = ""  # cards that it asks a cluster for; nothing: it always runs here
    height: int = 0  # stages on the longest way from here to the end
    stage: Any = field(default=None, repr=False)  # DVC's

    def __post_init__(self) -> None:
        self.label = self.label or self.name

    def width(self, jobs: int) -> int:
        """How many of ``jobs`` cores the stage takes."""
        wanted = {"all": jobs, "half": jobs // 2}.get(self.cores)
        return max(1, min(int(self.cores) if wanted is None else wanted, jobs))


def read_graph() -> dict[str, Step]:
    """The stages of dvc.yaml and what each needs. DVC parses each file once, also for the processes forked from here.

    Raises:
        InputError: DVC cannot read dvc.yaml or params.yaml.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    _parse_once()
    try:
        repo = Repo(_wait_for_lock=True)  # type: ignore[no-untyped-call]
        stages, graph = list(repo.index.stages), repo.index.graph
    except DvcException as error:
        reason: BaseException = error
        while isinstance(reason.__cause__, DvcException):
            reason = reason.__cause__
        raise InputError("dvc.yaml", f"the pipeline cannot be read: {reason}") from error
    steps = {}
    for order, stage in enumerate(stages):
        meta = {key: str(value) for key, value in (stage.meta or {}).items()}
        needs = {other.addressing for other in graph.successors(stage)}
        cores, paper, label, remote = (meta.get(name, "") for name in ("cores", "paper", "label", "remote"))
        steps[stage.addressing] = Step(stage.addressing, order, needs, cores or "1", paper, label, remote, stage=stage)
    return with_heights(steps)


def _parse_once() -> None:
    """DVC parses a params file anew for every stage; let it do so once for every state of the file."""
    from dvc.dependency import param
    from dvc.utils.serialize import load_path

    @lru_cache
    def parsed(path: str, fs: Any, changed: int, size: int) -> Any:
        return load_path(path, fs)

    def load(path: str, fs: Any) -> Any:
        state = Path(path).stat()
        return parsed(path, fs, state.st_mtime_ns, state.st_size)

    param.load_path = load


def with_heights(steps: dict[str, Step]) -> dict[str, Step]:
    """Fill ``height``: a stage on a long chain goes first."""
    import networkx as nx

    graph = nx.DiGraph((name, need) for name, step in steps.items() for need in step.needs)
    graph.add_nodes_from(steps)
    for name in nx.topological_sort(graph):  # users come before what they need
        steps[name].height = 1 + max((steps[user].height for user in graph.predecessors(name)), default=0)
    return steps


def select(steps: dict[str, Step], targets: list[str], paper: str = "") -> dict[str, Step]:
    """The named stages (a matrix's name means all its items) or those of a paper, with all that they need.

    Raises:
        InputError: nothing of that name.
    """
    wanted = {name for name, step in steps.items() if paper and step.paper == paper}
    if paper and not wanted:
        known = sorted({step.paper for step in steps.values()} - {""})
        raise InputError("dvc.yaml", f"no stage belongs to paper {paper!r}; there are {', '.join(known)}")
    for target in targets:
        found = {name for name, step in steps.items() if target in (name, step.label, name.split("@")[0])}
        if not found:
            raise InputError("dvc.yaml", f"no stage {target!r}; there are {', '.join(s.label for s in steps.values())}")
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
    ready = [step for step in waiting if step.needs & chosen <= done and step.width(jobs) <= free]
    return min(ready, key=lambda step: (-step.height, step.order), default=None)


def up_to_date(steps: dict[str, Step]) -> set[str]:
    """Stages that DVC finds unchanged and that need no changed stage: there is nothing to start for them."""
    from dvc.repo import lock_repo

    done: set[str] = set()
    if steps:
        with lock_repo(next(iter(steps.values())).stage.repo), _looked_at_once(steps.values()):
            for name, step in sorted(steps.items(), key=lambda item: -item[1].height):  # what is needed comes first
                if step.needs & set(steps) <= done and not step.stage.changed():
                    done.add(name)
    return done


@contextmanager
def _looked_at_once(steps: Iterable[Step]) -> Iterator[None]:
    """While nothing runs, DVC hashes each path a single time, however many stages read what one wrote."""
    outputs = [output for step in steps for output in (*step.stage.deps, *step.stage.outs)]
    found: dict[str, Any] = {}

    def hash_of(path: str, look: Callable[[], Any]) -> Any:
        if path not in found:
            found[path] = look()
        return found[path]

    for output in outputs:
        output.get_hash = partial(hash_of, output.fs_path, output.get_hash)
    try:
        yield
    finally:
        for output in outputs:
            del output.get_hash  # the class's own again


def sort_lock(path: str, steps: dict[str, Step]) -> None:
    """dvc.lock in the order of dvc.yaml, whichever stage finished first: a diff then shows what changed.

    Runs of a stage that only another profile asks for (more seeds) stay in it, behind the others.
    """
    from dvc.utils.serialize import modify_yaml

    if not Path(path).is_file():
        return
    with modify_yaml(path) as lock:
        stages = lock.get("stages", {})
        known = {name.split("@")[0]: step.order for name, step in steps.items()}
        place = {name: steps[name].order if name in steps else known.get(name.split("@")[0]) for name in stages}
        kept = [name for name, order in place.items() if order is not None and (name in steps or "@" in name)]
        order = sorted(kept, key=lambda name: (place[name], name not in steps, name))
        lock["stages"] = {name: stages[name] for name in order}
