"""What a card computes, against the CPU and against a slow oracle: checks that need no pytest.

Each is a function of a device to figures and "ok". `make gpu` runs them on a bare machine (`lib.bench.gpu.checks`), in a
folder with data/face_model.npz; `test_gpu_checks.py` runs them on the card where there is one, and on the CPU, where
the torch rasteriser is compared with the compiled one and the rest with itself. All is float32 with TF32 off. `lib.metrics`
computes in numpy: nothing of it runs on a card.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from lib import papers
from lib.core.checkpoint import save_weights
from lib.engine.device import MixedPrecision
from lib.engine.runs import Prepared, run_folder
from lib.losses import alignment, coefficients, landmark, photometric, pose, reprojection
from lib.models.base import Views
from lib.models.flow.load import KINDS, build_flow
from lib.models.parts.encoders import BACKBONES, build_encoder
from lib.morphable.model import FACE_MODEL, FaceModel
from lib.renderers.cameras import PerspectiveCamera, WeakPerspectiveCamera, euler_to_matrix
from lib.renderers.crossview import render_pairs
from lib.renderers.domain_transform import domain_transform
from lib.renderers.normals import vertex_normals
from lib.renderers.raster_torch import Ahead
from lib.renderers.rasterize import ENVIRONMENT, rasterize, use
from lib.renderers.render import shade_fragments
from tests.bench.gpu_renderers import Figures, flips_on_edges, inside_faces, rasterisers, scene
from tests.packs import write_siamese_3dmm, write_starts, write_training_set

Check = Callable[[torch.device], Figures]
CPU = torch.device("cpu")
SIZE, K, E = 64, 10, 6


def apart(found: Tensor, wanted: Tensor) -> float:
    """Length of the difference over the length of `wanted`."""
    found, wanted = (x.detach().to("cpu", torch.float64) for x in (found, wanted))
    return float((found - wanted).norm() / wanted.norm().clamp(min=1e-30))


def judged(found: dict[str, tuple[float, float]], **limits: float) -> Figures:
    """The worst of both figures and whose it is; ok when none is above its limit."""
    most, whose = {}, {}
    for k, what in enumerate(limits):
        most[what], whose[f"{what}_of"] = max((figures[k], name) for name, figures in found.items())
    ok = all(most[what] <= limit for what, limit in limits.items())
    return most | whose | {"compared": len(found), "ok": ok}


@contextmanager
def drawn_by(renderer: str) -> Iterator[None]:
    """This rasteriser, whatever the device."""
    before = os.environ.get(ENVIRONMENT, "auto")
    use(renderer)
    try:
        yield
    finally:
        use(before)


# ---- gradients and losses ----
def compare(device: torch.device, work: Callable[..., Tensor], *given: Tensor) -> tuple[float, float]:
    """How far value and gradients of `work` on the device are from the CPU's (`apart`); the worst of the gradients."""
    found = []
    for where in (CPU, device):
        leaves = [x.detach().to(where).requires_grad_(x.is_floating_point()) for x in given]
        value = work(*leaves)
        grads = torch.autograd.grad(value, [x for x in leaves if x.requires_grad], allow_unused=True)
        found.append((value, grads))
    (wanted, wanted_grads), (value, grads) = found
    pairs = zip(grads, wanted_grads, strict=True)
    return apart(value, wanted), max(apart(g, w) for g, w in pairs if g is not None and w is not None)


def weighted(x: Tensor) -> Tensor:
    """A scalar that feels every element of x differently."""
    return (x.double() * torch.linspace(-1, 1, x.numel(), dtype=torch.float64).to(x.device).view(x.shape)).sum()


def gradients(device: torch.device) -> Figures:
    """Of a shaded image to screen, albedo, normals and light, and of a view rendered in others (equations 3 and 4 of MVF-Net)
    to vertices, images and cameras. Values to 1e-5, gradients to 3e-3."""
    at, size = scene(64), 64
    faces = at.faces

    def image(screen: Tensor, albedo: Tensor, normals: Tensor, sh: Tensor) -> Tensor:
        mesh = faces.to(screen.device)
        frag = rasterize(screen, mesh, (size, size), "torch")
        return weighted(shade_fragments(frag, mesh, albedo, normals, sh)[0]) + weighted(frag.depth) / 1e3

    shaded = compare(device, image, at.screen, at.albedo, vertex_normals(at.vertices, faces), at.sh)
    yaw = torch.tensor([0.0, -0.7, 0.7] * 2)
    R = euler_to_matrix(yaw, 0.1 * yaw + 0.03, 0.05 * yaw)
    coarse = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    smooth = nn.functional.interpolate(
        coarse, (size, size), mode="bicubic"
    )  # noise has another gradient in every pixel
    pictures = smooth.unflatten(0, (2, 3))
    scale, t2d = torch.full((6,), size / 200), torch.full((6, 2), size / 2 + 0.3)

    def renders(vertices: Tensor, pictures: Tensor, *camera: Tensor) -> Any:
        return render_pairs(
            vertices, faces.to(vertices.device), pictures, WeakPerspectiveCamera(*camera), backend="torch"
        )

    given = (at.vertices, pictures, scale, R, t2d)
    one, other = (renders(*(x.to(where) for x in given)).face_id.cpu() for where in (CPU, device))
    flips = int((one != other).sum())  # the projections differ in their last digits, and so may the faces
    agree = (one == other)[:, [0, 0, 1, 2], None]
    paired = compare(device, lambda *x: weighted(renders(*x).image * agree.to(x[0].device)), *given)
    ok = max(shaded[0], paired[0]) < 1e-5 and max(shaded[1], paired[1]) < 3e-3 and flips <= 3
    names = ("shaded", "shaded_gradient", "pairs", "pairs_gradient")
    return dict(zip(names, (*shaded, *paired), strict=True)) | {"flips": flips, "ok": ok}


def loss_cases() -> dict[str, tuple[Callable[..., Tensor], tuple[Tensor, ...]]]:
    """Every term of `lib.losses` by its name: a function, and what it is given."""
    rng = torch.Generator().manual_seed(0)
    draw, b, size = partial(torch.rand, generator=rng), 3, 64
    torch.manual_seed(0)
    flow = build_flow("pwcnet_tiny").eval().requires_grad_(False)
    a, c, mask = draw(b, 3, size, size), draw(b, 3, size, size), (draw(b, size, size) > 0.4, draw(b, size, size) > 0.4)
    angles = [draw(b) - 0.5 for _ in range(6)]
    weak = [(draw(b) + 0.3, euler_to_matrix(*angles[k : k + 3]), size * draw(b, 2)) for k in (0, 3)]
    K = torch.tensor([[90.0, 0, 32], [0, 90.0, 32], [0, 0, 1]]).repeat(b, 1, 1)
    t, shape = torch.tensor([0.0, 0, 400]).repeat(b, 1), 80 * (draw(b, 50, 3) - 0.5)

    def align(observed: Tensor, rendered: Tensor, m: Tensor, n: Tensor) -> Tensor:
        return alignment.alignment_loss(flow.to(m.device), observed, rendered, m, n).mean()

    def posed(f: Tensor, R: Tensor, at: Tensor, f2: Tensor, R2: Tensor, at2: Tensor) -> Tensor:
        return pose.pose_loss(WeakPerspectiveCamera(f, R, at), WeakPerspectiveCamera(f2, R2, at2), size)

    def reprojected(s: Tensor, R: Tensor, s_hat: Tensor, R_hat: Tensor, K: Tensor, t: Tensor) -> Tensor:
        cameras = [PerspectiveCamera(K, r, t) for r in (R, R_hat)]
        return reprojection.reprojection_loss(s, cameras[0], s_hat, cameras[1], 1)

    marked = partial(landmark.landmark_loss, size=size, weights=landmark.landmark_weights(0.5))
    codes = draw(b, 20), draw(b, 10), draw(b, 20), draw(b, 10)
    return {
        "alignment_loss": (align, (a, c, *mask)),
        "photometric_loss": (lambda *x: photometric.photometric_loss(*x).mean(), (a, c, *mask)),
        "landmark_loss": (marked, (size * draw(b, 68, 2), size * draw(b, 68, 2))),
        "coefficient_loss": (coefficients.coefficient_loss, codes),
        "regularisation": (coefficients.regularisation, codes[:2]),
        "pose_loss": (posed, (*weak[0], *weak[1])),
        "reprojection_loss": (reprojected, (shape, weak[0][1], shape + 2 * draw(b, 50, 3), weak[1][1], K, t)),
    }


def losses(device: torch.device) -> Figures:
    """Every term of `lib.losses`: values to 1e-5, gradients to 1e-4."""
    found = {name: compare(device, work, *given) for name, (work, given) in loss_cases().items()}
    return judged(found, value=1e-5, gradient=1e-4)


def edge_preserving_filter(device: torch.device) -> Figures:
    """The domain transform in torch against the compiled one: to 1e-4, and a mask cut at one half differs nowhere else."""
    rng = torch.Generator().manual_seed(0)
    covered, guide = (torch.rand(4, 48, 48, generator=rng) > 0.5).float(), torch.rand(2, 3, 48, 48, generator=rng)
    want = domain_transform(covered, guide, 4.0, 0.25, backend="numba")
    found = domain_transform(covered.to(device), guide.to(device), 4.0, 0.25, backend="torch").cpu()
    most = float((found - want).abs().max())
    return {"difference": most, "mask": int(((found > 0.5) != (want > 0.5)).sum()), "ok": most < 1e-4}


# ---- networks and objectives ----
@cache
def parameters(folder: Path) -> dict[str, Any]:
    """Of a tiny profile whose data are written to `folder`/data, where data/face_model.npz is: 12 faces in triplets, 24
    people, all that runs start from."""
    with open(Path(papers.FOLDER).parent / "profiles/smoke.yaml", encoding="utf-8") as stream:
        params: dict[str, Any] = yaml.safe_load(stream)
    params["profile"] = params["material"] = "checks"
    params["data"]["train"]["image_size"] = SIZE
    params["mvfnet"] |= {"image_size": SIZE, "n_id": K, "n_exp": E, "weights": {"lambda_1": 1e-3, "lambda_5": 1e-4}}
    params["mvfnet"]["peers"]["n_alb"], params["mvfnet"]["identity"]["dim"] = 5, 16
    for paper in papers.names():
        params[paper]["loop"] |= {"batch_size": 4, "precision": "32-true"}
    face, own = FaceModel.load(folder / FACE_MODEL), folder / "data/checks"
    write_training_set(own / "train", face, size=SIZE)
    write_starts(own, face, SIZE, K, E)
    write_siamese_3dmm(own, face)
    return params


def each_run() -> Iterator[tuple[str, Prepared]]:
    """Every run of every paper, its weights stirred so that every head says something."""
    params = parameters(Path.cwd())
    for paper in papers.names():
        for run in papers.training(paper).RUNS:
            prepared = papers.training(paper).prepare(params, run, 0)
            rng = torch.Generator().manual_seed(0)
            with torch.no_grad():
                for p in prepared.task.model.parameters():
                    p += 0.01 * torch.randn(p.shape, generator=rng)
            path = run_folder(params["profile"], paper, run, 0) / "model.safetensors"
            save_weights(path, prepared.task.model, prepared.meta)
            yield f"{paper} {run}", prepared


def placed(prepared: Prepared, device: torch.device | str) -> nn.Module:
    """The run's network as the loop wraps it; it and what it learns from are on the device."""
    task: Any = prepared.task
    if isinstance(objective := getattr(task, "objective", None), nn.Module):
        objective.to(device)
    return MixedPrecision(task.model.to(device), "32-true").train()


def step(prepared: Prepared, device: torch.device, backward: bool = True) -> tuple[Tensor, list[Tensor]]:
    """Loss and gradients of a run's first batch."""
    model = placed(prepared, device)
    batch = {k: v.to(device) for k, v in prepared.task.batch(0, 0, 1).items()}
    loss = prepared.task.loss(model, batch)
    model.zero_grad(set_to_none=True)
    if backward:
        loss.backward()
    return loss.detach(), [p.grad for p in model.parameters() if p.grad is not None]


def objectives(device: torch.device) -> Figures:
    """The loss of every run, drawn by the torch rasteriser on the device and the compiled one on the CPU: value to 1e-4,
    gradient of all weights to 3e-3 (one pixel whose face flips changes both by about a tenth of that)."""
    found = {}
    for name, prepared in each_run():
        with drawn_by("numba"):
            wanted, wanted_grads = step(prepared, CPU)
        value, grads = step(prepared, device)
        long = [torch.cat([g.flatten().cpu() for g in gs]) for gs in (grads, wanted_grads)]
        found[name] = apart(value, wanted), apart(*long)
    return judged(found, value=1e-4, gradient=3e-3)


def networks(device: torch.device) -> Figures:
    """The face model, every encoder and flow network at 64 px, and what every run's network regresses, on noise: float32 to
    1e-4 of the CPU's, bfloat16 to 5 %."""
    rng = torch.Generator().manual_seed(0)
    pictures, found = torch.rand(4, 3, 3, SIZE, SIZE, generator=rng), {}
    torch.manual_seed(0)

    def note(name: str, model: nn.Module, call: Callable[..., Any], *given: Tensor) -> None:
        want = call(model.to(CPU).eval(), *given)  # a face model that runs share is where the last one left it
        model, there = model.to(device), [x.to(device) for x in given]
        exact = call(model, *there)
        with torch.autocast(device.type, torch.bfloat16):
            rough = call(model, *there)
        found[name] = apart(exact, want), apart(rough, want)

    def regressed(model: Any, images: Tensor, K: Tensor) -> Tensor:
        return torch.cat([x.flatten() for x in model.reconstruct(Views(images, K)).parameters.values()])

    with torch.no_grad():
        codes = torch.randn(4, 10, generator=rng), torch.randn(4, 6, generator=rng)
        note("face model", FaceModel.load(FACE_MODEL), lambda model, *x: model.vertices(*x), *codes)
        for name in BACKBONES:
            note(name, build_encoder(name), lambda model, x: model(x), pictures[:, 0])
        for name in KINDS:
            note(name, build_flow(name), lambda model, x, y: model(x, y), pictures[:, 0], pictures[:, 1])
    calibration = torch.tensor([[1.5 * SIZE, 0, SIZE / 2], [0, 1.5 * SIZE, SIZE / 2], [0, 0, 1]]).expand(4, 3, 3, 3)
    for name, prepared in each_run():
        v = getattr(prepared.task.model, "n_views", 1)
        note(name, prepared.task.model, regressed, pictures[:, :v], calibration[:, :v])
    return judged(found, float32=1e-4, bf16=0.05)


def determinism(device: torch.device) -> Figures:
    """The same forward pass twice: the same faces behind pixels, losses to 1e-6 (a card adds up normals in any order)."""
    at, worst = scene(96, 4), 0.0
    one, two = (rasterize(at.screen.to(device), at.faces.to(device), (96, 96), "torch").face_id for _ in range(2))
    for _, prepared in each_run():
        (first, _), (second, _) = (step(prepared, device, backward=False) for _ in range(2))
        worst = max(worst, apart(second, first))
    return {"faces": int((one != two).sum()), "losses": worst, "ok": torch.equal(one, two) and worst < 1e-6}


def no_host_synchronisation(device: torch.device) -> Figures:
    """A training step of every run never waits for the card: loss, backward pass, update."""
    found = {}
    for name, prepared in each_run():
        model = placed(prepared, device)
        batch = {k: v.to(device) for k, v in prepared.task.batch(1, 0, 1).items()}
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=device.type == "cuda")
        try:
            for mode in ("default", "error"):  # at first constants are made and kernels chosen
                with Ahead() as ahead, waiting_is(mode, device):
                    prepared.task.loss(model, batch).backward()
                    optimizer.step()
                ahead.check()
        except RuntimeError as error:
            found[name] = str(error).splitlines()[0]
    return {"waits": found, "ok": not found}


@contextmanager
def waiting_is(mode: str, device: torch.device) -> Iterator[None]:
    """Whether the host may wait for the card: "default" yes, "error" it is a RuntimeError."""
    try:
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode(mode)
        yield
    finally:
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")


CHECKS: tuple[Check, ...] = (
    rasterisers,
    inside_faces,
    flips_on_edges,
    gradients,
    losses,
    edge_preserving_filter,
    objectives,
    no_host_synchronisation,
    networks,
    determinism,
)


@contextmanager
def exactly() -> Iterator[None]:
    """No TF32."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def figures(check: Check, device: torch.device) -> Figures:
    """The row of a check; one that breaks off has failed."""
    began = time.monotonic()
    try:
        with exactly(), drawn_by("torch"):
            found = check(device)
    except Exception as error:
        found = {"ok": False, "error": f"{type(error).__name__}: {error}"[:300]}
    return {"check": check.__name__, "seconds": round(time.monotonic() - began, 2), **found}
