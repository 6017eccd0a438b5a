"""How a network that papers start from, or learn with, is made: train it, write its weights, say what it can do."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from lib.core.checkpoint import save_weights
from lib.core.files import atomic_write_json, atomic_write_text, write_csv
from lib.core.processes import wait
from lib.core.provenance import footer, origin
from lib.engine.loop import LoopConfig, Task, train
from lib.engine.runs import checkpoint_file


def pretrain(
    task: Task, net: nn.Module, loop: LoopConfig, out: Path, identity: dict[str, Any], **header: Any
) -> dict[str, float] | None:
    """Train `task` and write `net`, the part of its model that is kept; the last figures of the training.

    An interrupted training goes on where it stopped when it is called again.

    Args:
        out: data/<profile>/<what>/<name>.safetensors; identity: what the result depends on, see `lib.engine.loop.train`.
        header: of the weights file.

    Returns:
        the loss and the task's validation figures, or None in a process (of many under torchrun) that writes nothing.
    """
    checkpoint = checkpoint_file(out.parents[1].name, "pretraining", f"{out.parent.name}-{out.stem}")
    result = train(task, loop, checkpoint, identity, name=f"{out.parent.name} {out.stem}")
    figures = {k: v for k, v in result["history"][-1].items() if k != "step"}
    if result["writes"]:
        write_weights(out, net, header | {"steps": result["steps"]}, seconds=round(result["seconds"], 1), **figures)
        checkpoint.unlink(missing_ok=True)
    wait()
    return figures if result["writes"] else None


def write_weights(out: Path, net: nn.Module, header: dict[str, Any], **figures: Any) -> None:
    """The weights with their header, and beside them a .json with the header, the number of parameters and `figures`."""
    save_weights(out, net, header)
    shown = {k: round(v, 5) if isinstance(v, float) else v for k, v in figures.items()}
    atomic_write_json(
        out.with_suffix(".json"), header | {"n_parameters": sum(p.numel() for p in net.parameters())} | shown
    )


def write_table(out: Path, rows: Sequence[dict[str, Any]], text: str, **facts: Any) -> None:
    """What networks can do: `rows` as `out`.csv, and `text` in Markdown with the provenance below as `out`.md.

    facts: profile, data, subjects and seeds of the measurement, see `lib.core.provenance.footer`.
    """
    write_csv(out.with_suffix(".csv"), rows)
    line = footer(facts | origin())
    atomic_write_text(out.with_suffix(".md"), f"{text}\n\n{line}\n")


def markdown(head: Sequence[str], rows: Iterable[Sequence[Any]], text_columns: int = 1) -> str:
    """A table whose first columns are text and whose others are numbers."""
    rule = [":---" if i < text_columns else "---:" for i in range(len(head))]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in (head, rule, *rows))
