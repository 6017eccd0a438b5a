"""Part b of `make gpu`: how fast, and how far from what the card could do.

    python -m lib.bench.gpu.speed --out FILE --device cuda|cpu --until SECONDS [--tiny]

Rows of four kinds. "rate": what the card copies and multiplies. "render": rasterise and shade, ms an image, by every rasteriser
that is installed. "train": a step of every run of every paper as the training loop does it, and by part. "inference": ms a set of
photographs. limit_ms: what the bytes or operations alone would take at the measured rates; ratio: how many times as long it took.
"""

from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from lib import papers
from lib.bench.gpu.part import OPTIONS, Part, Row
from lib.bench.measure import Case, measure
from lib.bench.renderer import make_scene
from lib.bench.training import own_runs, parts
from lib.core.checkpoint import save_weights
from lib.core.command import command
from lib.core.params import material
from lib.engine.device import resolve_precision
from lib.engine.loop import LoopConfig, Task, train
from lib.engine.runs import checkpoint_file, run_folder
from lib.models.base import Views
from lib.morphable.model import FACE_MODEL
from lib.renderers.normals import vertex_normals
from lib.renderers.raster_torch import Ahead
from lib.renderers.rasterize import attach_barycentrics, available_backends, visible_faces
from lib.renderers.render import shade_fragments

SIZES, BATCHES, STEPS = (224, 64, 128, 512), (64, 16, 1), 10


class Speed:
    """All measurements on one device; rates are kept, since later ones are compared with them."""

    def __init__(self, device: torch.device, tiny: bool) -> None:
        self.device, self.tiny, self.on_card = device, tiny, device.type == "cuda"
        self.rates: dict[str, float] = {}  # bytes or operations a millisecond
        self.sizes: dict[tuple[str, str], int] = {}  # of the photographs of runs whose networks are kept

    def ms(self, runs: dict[str, Callable[[], object]], items: int = 1, seconds: float = 0.2) -> dict[str, float]:
        """Milliseconds an item of each; median over about so many seconds."""
        cases = [Case(name, "", run, items, 0) for name, run in runs.items()]
        return dict(zip(runs, measure(cases, 0.0 if self.tiny else seconds, self.device).ms.tolist(), strict=True))

    def limit(self, ms: float, what: str, amount: float) -> Row:
        """limit_ms and ratio of what took `ms` and moves or computes this amount; nothing where that rate is not known."""
        least = amount / self.rates[what] if what in self.rates else 0.0
        return {"limit_ms": least, "ratio": ms / least} if least else {}

    def measured_rates(self) -> Iterator[Row]:
        """Bytes that a copy within the card reads and writes, operations of products of large square matrices."""
        n, side = (1 << 16, 128) if self.tiny else (1 << 28, 8192)
        source, target = torch.rand(2, n, device=self.device)
        self.rates["copy"] = 8 * n / self.ms({"copy": lambda: target.copy_(source)})["copy"]
        yield {"what": "copy", "gb_per_s": self.rates["copy"] / 1e6}
        before, backend = torch.backends.cuda.matmul.allow_tf32, torch.backends.cuda.matmul
        for name, dtype in (("bf16", torch.bfloat16), ("tf32", torch.float32), ("float32", torch.float32)):
            backend.allow_tf32 = name == "tf32"
            a, b = torch.rand(2, side, side, device=self.device, dtype=dtype)
            self.rates[name] = 2 * side**3 / self.ms({name: partial(torch.mm, a, b)})[name]
            yield {"what": "product", "precision": name, "tflop_per_s": self.rates[name] / 1e9}
        backend.allow_tf32 = before

    def rendering(self, size: int, batch: int) -> Iterator[Row]:
        """The head in `batch` poses at `size` px: from points on the screen to shaded images, and back to points and normals."""
        made, shape = make_scene(FACE_MODEL, size, batch), (size, size)
        turned = vertex_normals(made.vertices, made.faces) @ made.camera.R.mT
        given = (made.screen, turned, made.faces, made.albedo, made.sh)
        screen, normals, faces, albedo, sh = (x.to(self.device) for x in given)
        points, directions = (x.clone().requires_grad_() for x in (screen, normals))

        def image(find: Callable[..., Tensor], screen: Tensor, normals: Tensor) -> Tensor:
            frag = attach_barycentrics(find(screen.detach(), faces, shape), screen, faces, True)
            return shade_fragments(frag, faces, albedo, normals, sh)[0]

        def back(find: Callable[..., Tensor]) -> None:
            image(find, points, directions).square().mean().backward()

        want = visible_faces(screen, faces, shape, "torch")
        for name, find in rasterisers(self.on_card).items():
            same = (find(screen, faces, shape) == want).float().mean()
            runs: dict[str, Callable[[], object]] = {"forward": partial(image, find, screen, normals)}
            runs["forward and backward"] = partial(back, find)
            with Ahead() as ahead:
                found = self.ms(runs, batch)
            ahead.check()
            for what, ms in found.items():
                row = {"what": what, "renderer": name, "size": size, "batch": batch, "ms": ms}
                row |= {"same_faces": float(same)}
                moved = render_bytes(batch, len(albedo), len(faces), size, "backward" in what)
                yield row | self.limit(ms, "copy", moved / batch)

    def training(self, params: dict[str, Any], paper: str, run: str) -> Iterator[Row]:
        """A step of a run, whole and by part. Its network is kept: other runs start from it, and `inference` takes it."""
        task, loop, _, meta = papers.training(paper).prepare(params, run, 0)
        precision = resolve_precision(loop.precision)
        if self.on_card:
            torch.cuda.reset_peak_memory_stats()
        step_ms, busy_ms = self.steps(task, loop, checkpoint_file(material(params), paper, run))
        peak = torch.cuda.max_memory_allocated() / 2**30 if self.on_card else None
        save_weights(run_folder(material(params), paper, run, 0) / "model.safetensors", task.model, meta)
        parts, operations, images = self.by_part(task, loop)
        self.sizes[paper, run] = images[-1]
        row = {"paper": paper, "run": run, "precision": precision, "batch": loop.batch_size}
        row |= {"steps_per_s": 1e3 / step_ms, "images_per_s": 1e3 / step_ms * images[:-3].numel(), "ms": parts}
        row |= {"busy": busy_ms / step_ms if busy_ms else None, "peak_gib": peak}
        yield row | self.limit(step_ms, "bf16" if precision == "bf16-mixed" else "tf32", operations)

    def steps(self, task: Task, loop: LoopConfig, checkpoint: Path) -> tuple[float, float]:
        """Milliseconds of a step of the training loop, and how many of them the card computes.

        The profiler slows the host, not the card: what it sees is compared with steps that it did not watch.
        """
        task.validate = lambda model: {}  # type: ignore[method-assign]
        n = 1 if self.tiny else STEPS

        def spent(steps: int) -> float:
            config = replace(loop, steps=steps, checkpoint_every=steps, validate_every=0)
            return 1e3 * train(task, config, checkpoint)["seconds"]

        spent(n)  # kernels are chosen, memory is reserved
        step_ms = max(spent(3 * n) - spent(n), 1e-3) / (2 * n)  # without beginning and end
        kind = ProfilerActivity.CUDA if self.on_card else ProfilerActivity.CPU
        with profile(activities=[kind], acc_events=True) as watched:
            spent(n)
        return step_ms, computing(watched) / n

    def by_part(self, task: Task, loop: LoopConfig) -> tuple[dict[str, float], int, torch.Size]:
        """Milliseconds of each part of a step by itself, operations of a step, and the shape of its images."""
        runs, batch = parts(task, loop, self.device)
        with Ahead() as ahead:
            ms = self.ms(runs, seconds=0.05)
            with FlopCounterMode(display=False) as operations:
                runs["forward and backward"]()
        ahead.check()
        ms = {name.removeprefix("forward and "): t - ms["forward"] * (" and " in name) for name, t in ms.items()}
        return ms, operations.get_total_flops(), batch["images"].shape

    def inference(self, params: dict[str, Any], paper: str, run: str) -> Iterator[Row]:
        """A method on the photographs of one face, and of many at once."""
        method: Any = papers.load_method(run_folder(material(params), paper, run, 0))
        method, size, v = method.to(self.device), self.sizes[paper, run], getattr(method, "n_views", 1)
        K = torch.tensor([[1.5 * size, 0, size / 2], [0, 1.5 * size, size / 2], [0, 0, 1]], device=self.device)
        for batch in (1, 2 if self.tiny else 32):
            views = Views(torch.rand(batch, v, 3, size, size, device=self.device), K.expand(batch, v, 3, 3))
            yield {"paper": paper, "run": run, "batch": batch, **self.ms({"ms": partial(method.reconstruct, views)})}


def rasterisers(on_card: bool) -> dict[str, Callable[..., Tensor]]:
    """Who finds visible faces here: screen (B, N, 3), faces (F, 3) and (H, W) to (B, H, W)."""
    names = [name for name in available_backends() if name != ("numba" if on_card else "pytorch3d")]
    found: dict[str, Callable[..., Tensor]] = {name: partial(visible_faces, backend=name) for name in names}
    if on_card and find_spec("nvdiffrast"):
        from nvdiffrast import torch as nvdiffrast

        found["nvdiffrast"] = partial(nvdiffrast_faces, nvdiffrast, nvdiffrast.RasterizeCudaContext())
    return found


def nvdiffrast_faces(library: Any, context: Any, screen: Tensor, faces: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Face index (B, H, W), -1 for none, by nvdiffrast: perspective screen points (B, N, 3) px and mm, faces (F, 3).

    Its first row lies at y = -1 of clip space, which is the image's top here.
    """
    (h, w), (u, v, z) = image_size, screen.unbind(-1)
    near, far = 0.9 * z.min(), 1.1 * z.max()
    depth = (far + near - 2 * far * near / z) / (far - near)
    clip = torch.stack([2 * u / w - 1, 2 * v / h - 1, depth, torch.ones_like(z)], -1) * z[..., None]
    return library.rasterize(context, clip.contiguous(), faces.int(), image_size)[0][..., 3].long() - 1


def render_bytes(batch: int, vertices: int, faces: int, size: int, backward: bool) -> int:
    """Bytes that must move: screen, normals and albedo (float32) and faces (int64) in, image (float32) and face indices (int64)
    out; backward all of these in (the image's gradient for the image), and gradients of screen and normals out."""
    mesh, attributes, images = 24 * faces + 12 * vertices, 24 * batch * vertices, 20 * batch * size * size
    return (1 + backward) * (mesh + attributes + images) + backward * attributes


def computing(watched: profile) -> float:
    """Milliseconds in which a card computed: its kernels, which follow each other, without copies."""
    kernels = [e for e in watched.events() or () if e.device_type == DeviceType.CUDA and not e.is_user_annotation]
    return sum(e.time_range.elapsed_us() for e in kernels if not e.name.startswith(("Memcpy", "Memset"))) / 1e3


@command(__doc__, *OPTIONS)
def main(options: Namespace) -> None:
    """By worth: the rates, the size that papers train at, training; then other sizes, and inference."""
    job = Part(options)
    speed, sizes = Speed(job.device, job.tiny), [(size, batch) for size in SIZES for batch in BATCHES]
    params = own_runs(**({"batch_size": 2} if job.tiny else {}))
    runs = [(paper, run) for paper in papers.names() for run in papers.training(paper).RUNS]
    first, *others = [(32, 2)] if job.tiny else sizes
    job.item("rate", "copies and products", speed.measured_rates, seconds=3)
    job.item("render", str(first), partial(speed.rendering, *first), seconds=3)
    for named in runs:
        job.item("train", " ".join(named), partial(speed.training, params, *named), seconds=8)
    for size in others:
        job.item("render", str(size), partial(speed.rendering, *size), seconds=3)
    for named in speed.sizes:
        job.item("inference", " ".join(named), partial(speed.inference, params, *named), seconds=3)


if __name__ == "__main__":
    raise SystemExit(main())
