"""Run the pipeline of dvc.yaml with several stages at a time, and say what each took.

    python -m lib.pipeline [--profile quick] [--jobs 2] [--paper siamese] [--ray auto] [stage ...]

Stages that are up to date are not touched; a run that was stopped goes on where it was. The smoke profile runs in out/smoke/.
"""

import gc
import os
import sys
import time
from argparse import Namespace
from pathlib import Path

from lib import papers
from lib.core.command import argument, command
from lib.core.params import check_params, load_params
from lib.core.pool import cores
from lib.pipeline import code
from lib.pipeline.graph import read_graph, select, sort_lock, up_to_date
from lib.pipeline.lock import alone
from lib.pipeline.remote import check
from lib.pipeline.scheduler import Scheduler, write_timings
from lib.pipeline.schema import further
from lib.pipeline.workspace import enter, prepare_dvc


def run(options: Namespace) -> int:
    """Bring the stages up to date; 0 when everything is."""
    began = time.monotonic()
    gc.disable()  # what is read here, syntax trees and DVC's objects, is all in use: looking for garbage is a third of the time
    params = load_params()
    papers.check(params, *(name for name in papers.names() if name in params))
    check_params(params, further, papers.names())
    profile = str(params["profile"])
    cluster = check(options.ray) if options.ray else None
    # The paper's own sizes fill a GPU with one run; smaller profiles gain from one run per core.
    jobs = options.jobs or (1 if profile == "paper" else min(cores(), 8))
    everything = read_graph()
    code.refresh(code.commands(everything.values()))
    steps = select(everything, options.targets, options.paper)
    scheduler = Scheduler(steps, jobs, Path("data") / profile / "logs", up_to_date(steps), cluster)
    away = f", and {cluster.slots} trainings on {cluster.address}" if cluster else ""
    print(
        f"{profile} profile: {len(steps) - len(scheduler.done)} of {len(steps)} stages to run, {jobs} at a time{away}"
    )
    gc.enable()
    complete = scheduler.run()
    if scheduler.seconds:
        write_timings(Path("results/timings") / f"{profile}.csv", scheduler.seconds, everything)
        sort_lock("dvc.lock", everything)
        again = read_graph()
        left = {name for name in steps if complete} - up_to_date({name: again[name] for name in steps})
        if left:
            complete = False
            print(
                f"not up to date after their run: {', '.join(sorted(left))}; dvc.yaml misses something", file=sys.stderr
            )
    for name, took in sorted(scheduler.seconds.items(), key=lambda item: -item[1]):
        print(f"{took:8.1f} s  {name}")
    ran = len(scheduler.seconds)
    print(f"{time.monotonic() - began:8.1f} s  {ran} of {len(steps)} stages run{'' if complete else '; NOT COMPLETE'}")
    return 0 if complete else 130 if scheduler.stopping else 1


@command(
    __doc__,
    argument("targets", nargs="*", metavar="stage", help="stages to bring up to date (default: all)"),
    argument("--profile", default="", help="a profile of lib/profiles (default: that of params.yaml)"),
    argument("--paper", default="", help="only the stages of this paper and what they need"),
    argument("--jobs", type=int, default=0, help="stages at a time (default: one per core)"),
    argument(
        "--ray", default="", metavar="ADDRESS", help="train on this Ray cluster: auto, host:6379, ray://host:10001"
    ),
)
def main(options: Namespace) -> int:
    """Command line; 0 when everything is done."""
    prepare_dvc()
    os.chdir(enter(options.profile))
    with alone():
        return run(options)


if __name__ == "__main__":
    raise SystemExit(main())
