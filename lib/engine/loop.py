"""The training loop that every method shares.

Batches are drawn from (seed, step) and the learning rate is a function of the step, so the loop has no hidden state:
killed and resumed equals never killed, bit for bit on a CPU.

On a card nothing in a step waits for it: batches are made ahead, and the host looks at the losses every `read_every` steps.
"""

import math
import signal
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from lib.core.checkpoint import load_checkpoint, read_meta, save_checkpoint
from lib.core.errors import DivergenceError, Interrupted
from lib.core.files import fingerprint
from lib.core.params import checked
from lib.core.progress import progress
from lib.engine.device import MixedPrecision, batches, make_fabric
from lib.renderers.raster_torch import Ahead


def read_every(device: torch.device) -> int:
    """Steps between two looks at the losses: a CPU's are looked at before each step, a card would have to be waited for."""
    return 20 if device.type == "cuda" else 1


class Task(Protocol):
    """What a run learns: a model, its batches and its loss.

    A module that it has as `objective` goes to the device with the model.
    """

    model: nn.Module

    def batch(self, step: int, rank: int, world_size: int) -> dict[str, Tensor]:
        """The process's `lib.core.processes.share` of the batch of (seed, step); called by several threads at once."""

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """Scalar loss, a mean over the batch, what is not one from `everyone`; `model`: as the device wraps it."""

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Named validation figures; lower is better."""


@checked
class LoopConfig:
    """How long and how fast."""

    steps: int
    batch_size: int = 32
    lr: float = 1e-3
    weight_decay: float = 0.0
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: int = 20
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    clip_norm: float | None = None
    threads: int | None = None
    compile: bool = False  # the network by torch.compile: minutes at the start, for long runs on a card
    checkpoint_every: int = 100
    validate_every: int = 0  # 0: only at the end
    seed: int = 0


def learning_rate(config: LoopConfig, step: int) -> float:
    """Linear warm-up, then the schedule."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    if config.schedule == "constant":
        return config.lr
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def train(task: Task, config: LoopConfig, checkpoint: Path, identity: Any = None, name: str = "train") -> dict:
    """Run `task` to its last step and return {"history": rows, "seconds": s, "steps": n, "writes": bool}.

    writes: whether this process is the one (of many under torchrun) that writes files.

    checkpoint: file for interrupted runs; taken up when it was written by the same configuration and the same
    `identity` (anything JSON that names code-independent inputs, such as hashes of the data), else started afresh.

    Raises DivergenceError, and Interrupted (after saving) on SIGINT or SIGTERM.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    fabric = make_fabric()
    on_card = fabric.device.type == "cuda"
    optimizer = torch.optim.AdamW(
        task.model.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=on_card or None
    )
    if config.compile:
        task.model.compile()
    if on_card:
        torch.backends.cudnn.benchmark = True
        task.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model, fabric_optimizer = fabric.setup(MixedPrecision(task.model, config.precision), optimizer)
    if isinstance(objective := getattr(task, "objective", None), nn.Module):
        objective.to(fabric.device)
    mark = fingerprint({"config": asdict(config), "identity": identity})
    start, history, seconds = 0, [], 0.0
    guard = _DivergenceGuard(name, config)
    if checkpoint.exists():
        meta = read_meta(checkpoint)
        if meta.get("fingerprint") == mark:
            load_checkpoint(checkpoint, task.model, optimizer)
            start, history, seconds = meta["step"], meta["history"], meta["seconds"]
            guard.losses, guard.best = meta["recent_losses"], meta["best_loss"]
            print(f"{name}: resumed at step {start} of {config.steps}", flush=True)
        else:
            print(f"{name}: {checkpoint.name} belongs to another configuration or other data; starting afresh")
    model.train()
    began = time.perf_counter()

    def save(step: int) -> None:
        if fabric.is_global_zero:
            spent = seconds + time.perf_counter() - began
            meta = {"fingerprint": mark, "step": step, "history": history, "seconds": spent}
            meta |= {"recent_losses": guard.losses, "best_loss": guard.best}
            save_checkpoint(checkpoint, task.model, optimizer, meta)

    unread: list[Tensor] = []
    every = read_every(fabric.device)

    def read(step: int) -> bool:
        """Look at the losses up to this step, those of all processes together; whether any of them was asked to stop."""
        seen = torch.stack([*unread, torch.full_like(unread[0], bool(stop))])
        if fabric.world_size > 1:
            seen = fabric.all_reduce(seen, reduce_op="mean")
        *losses, asked = seen.tolist()
        for i, loss in enumerate(losses, start=step + 1 - len(unread)):
            guard.check(i, loss)
        unread.clear()
        ahead.check()
        return asked > 0

    with _stop_requested() as stop, Ahead() as ahead:
        steps = progress(range(start, config.steps), name, total=config.steps, initial=start)
        for step, batch in zip(steps, batches(task, fabric, range(start, config.steps)), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(config, step)
            loss = task.loss(model, batch)
            fabric_optimizer.zero_grad(set_to_none=True)
            fabric.backward(loss)
            if config.clip_norm:
                nn.utils.clip_grad_norm_(task.model.parameters(), config.clip_norm)
            done = step + 1
            last, stopping = done == config.steps, bool(stop) and fabric.world_size == 1  # many stop at the same step
            validate = config.validate_every > 0 and done % config.validate_every == 0
            keep = done % config.checkpoint_every == 0
            unread.append(loss.detach())
            if last or validate or keep or stopping or len(unread) == every:
                stopping = read(step)
            fabric_optimizer.step()
            if validate and not last:
                history.append(_validate(task, model, done, guard.recent))
            if (keep or stopping) and not last:
                save(done)
            if stopping and not last:
                raise Interrupted(f"{name}: stopped at step {done} of {config.steps}; run again to go on from there")
    history.append(_validate(task, model, config.steps, guard.recent))
    spent = seconds + time.perf_counter() - began
    return {"history": history, "seconds": spent, "steps": config.steps, "writes": fabric.is_global_zero}


def _validate(task: Task, model: nn.Module, step: int, loss: float) -> dict[str, float]:
    model.eval()
    with torch.inference_mode():
        row = {"step": step, "train_loss": loss, **task.validate(model)}
    model.train()
    return row


class _DivergenceGuard:
    """Stops a run whose loss is not finite, or whose recent median is far above the best median so far."""

    def __init__(self, name: str, config: LoopConfig, window: int = 20, factor: float = 10.0):
        self.name, self.lr, self.window, self.factor = name, config.lr, window, factor
        self.losses: list[float] = []
        self.best = 1e30  # JSON has no infinity

    @property
    def recent(self) -> float:
        """Median of the last losses; NaN before the first."""
        return statistics.median(self.losses) if self.losses else math.nan

    def check(self, step: int, loss: float) -> None:
        """Take a step's loss; DivergenceError when it is not finite or far above the best."""
        if not math.isfinite(loss):
            raise DivergenceError(
                f"{self.name}: the loss is {loss} at step {step}; lower the learning rate ({self.lr:g})"
            )
        self.losses = [*self.losses[-self.window + 1 :], loss]
        if len(self.losses) < self.window:
            return
        self.best = min(self.best, self.recent)
        if self.recent > self.factor * self.best:
            raise DivergenceError(
                f"{self.name}: the median loss rose from {self.best:.4g} to {self.recent:.4g} by step {step}; "
                f"lower the learning rate ({self.lr:g})"
            )


@contextmanager
def _stop_requested() -> Iterator[list[int]]:
    """A list that becomes non-empty on SIGINT or SIGTERM, so that a step is never torn in half; twice means at once."""
    asked: list[int] = []
    previous = {}

    def ask(number: int, _: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            previous[number] = signal.signal(number, ask)
        except ValueError:  # not in the main thread (a test runner's worker): leave the handlers alone
            break
    try:
        yield asked
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
