"""Part of `make gpu`: what the card is, and whether torch can use it; a process of its own, since a sick driver may hang it."""

import contextlib
import subprocess
from argparse import Namespace
from typing import Any

import torch

from lib.bench.gpu.part import OPTIONS
from lib.core.command import command
from lib.core.files import atomic_write_json
from lib.core.provenance import origin


def card() -> dict[str, Any]:
    """Name, memory (GiB), compute capability, driver and torch's CUDA; `problem`: why there is none, in CUDA's words."""
    driver, ask = "unknown", ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    with contextlib.suppress(OSError, subprocess.SubprocessError, IndexError):
        driver = subprocess.run(ask, capture_output=True, text=True, timeout=20, check=True).stdout.split()[0]
    facts: dict[str, Any] = {"cuda_of_torch": torch.version.cuda, "driver": driver}
    try:
        torch.zeros(1, device="cuda")
        found = torch.cuda.get_device_properties(0)
    except Exception as error:  # whatever CUDA says
        return facts | {"problem": str(error).splitlines()[0]}
    memory, capability = round(found.total_memory / 2**30, 1), f"{found.major}.{found.minor}"
    return facts | {"card": found.name, "memory_gib": memory, "capability": capability}


@command(__doc__, *OPTIONS)
def main(options: Namespace) -> None:
    facts = card() if options.device == "cuda" else {}
    atomic_write_json(options.out, {"card": facts, "origin": origin("triton", "nvdiffrast")})


if __name__ == "__main__":
    raise SystemExit(main())
