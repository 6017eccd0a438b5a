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
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from lib import papers
from lib.bench.renderer import Scene, make_scene
from lib.core.checkpoint import save_weights
from lib.core.files import save_npz_atomic
from lib.datasets.training.read import TrainingSet
from lib.engine.device import MixedPrecision
from lib.engine.runs import Prepared, run_folder
from lib.losses import alignment, coefficients, landmark, photometric, pose, reprojection
from lib.models.base import Views
from lib.models.flow.load import KINDS, build_flow
from lib.models.parts.encoders import BACKBONES, build_encoder
from lib.morphable.model import FACE_MODEL, FaceModel
from lib.papers.siamese.face import build
from lib.renderers.cameras import PerspectiveCamera, WeakPerspectiveCamera, euler_to_matrix
from lib.renderers.crossview import render_pairs
from lib.renderers.domain_transform import domain_transform
from lib.renderers.normals import vertex_normals
from lib.renderers.rasterize import ENVIRONMENT, rasterize, use
from lib.renderers.render import shade_fragments
from lib.renderers.shading import shade
from tests.packs import write_starts, write_training_set

Figures = dict[str, Any]
Check = Callable[[torch.device], Figures]
CPU = torch.device("cpu")
SIZE, K, E = 64, 10, 6


def scene(size: int, batch: int = 2) -> Scene:
    """The mean head in `batch` poses."""
    return make_scene(FACE_MODEL, size, batch)


def apart(found: Tensor, wanted: Tensor) -> float:
    """Length of the difference over the length of `wanted`."""
    found, wanted = (x.detach().to("cpu", torch.float64) for x in (found, wanted))
    return float((found - wanted).norm() / wanted.norm().clamp(min=1e-30))


def judged(found: dict[str, tuple[float, float]], **limits: float) -> Figures:
    """The worst of both figures and whose it is; ok when none is above its limit."""
    worst = {what: max(found, key=lambda name, k=k: found[name][k]) for k, what in enumerate(limits)}
    most = {what: found[name][k] for k, (what, name) in enumerate(worst.items())}
    ok = all(most[what] <= limit for what, limit in limits.items())
    return most | {f"{what}_of": name for what, name in worst.items()} | {"compared": len(found), "ok": ok}


@contextmanager
def drawn_by(renderer: str) -> Iterator[None]:
    """This rasteriser, whatever the device."""
    before = os.environ.get(ENVIRONMENT, "auto")
    use(renderer)
    try:
        yield
    finally:
        use(before)


# ---- rasterisers ----
def rasterisers(device: torch.device) -> Figures:
    """Faces behind pixels, torch on the device against the compiled rasteriser on the CPU: the same, all of them."""
    at, different, pixels = scene(96, 4), 0, 0
    weak = at.screen * torch.tensor([1.0, 1.0, -1.0])  # the far side of the head, with negative depths
    for screen, perspective, cull in ((at.screen, True, False), (at.screen, True, True), (weak, False, False)):
        options = {"image_size": (96, 80), "perspective": perspective, "cull_backfaces": cull}
        want = rasterize(screen, at.faces, backend="numba", **options).face_id
        found = rasterize(screen.to(device), at.faces.to(device), backend="torch", **options).face_id.cpu()
        different, pixels = different + int((found != want).sum()), pixels + int((want >= 0).sum())
    return {"different": different, "pixels": pixels, "ok": different == 0}


class Truth(NamedTuple):
    """face (H, W), -1 for none; sure (H, W) bool, no edge is near the pixel's centre; weights (H, W, 3) of its corners."""

    face: Tensor
    sure: Tensor
    weights: Tensor


def oracle(screen: Tensor, faces: Tensor, size: int, slack: float = 1e-4) -> Truth:
    """Every pixel of a square image against every face, in double precision; screen (N, 3) px and mm, perspective.

    A pixel is sure when moving all edges by `slack` px, inwards or outwards, does not change what it sees.
    """
    corners = screen.double()[faces]
    start, edge = corners[:, :, :2], corners[:, [1, 2, 0], :2] - corners[:, :, :2]
    area = edge[:, 0, 0] * edge[:, 1, 1] - edge[:, 0, 1] * edge[:, 1, 0]
    centres, rows = torch.arange(size, dtype=torch.float64) + 0.5, []
    for v in centres:
        to = torch.stack([centres, v.expand(size)], -1)[:, None, None] - start  # (W, F, 3 edges, 2)
        cross = (edge[..., 0] * to[..., 1] - edge[..., 1] * to[..., 0]) * area.sign()[:, None]
        weights = cross[..., [1, 2, 0]] / area.abs()[:, None] / corners[..., 2]  # an edge lies opposite to a corner
        nearness, distance = weights.sum(-1), (cross / edge.norm(dim=-1)).amin(-1)
        seen = [torch.where(distance >= least, nearness, 0).max(-1) for least in (0, slack, -slack)]
        face, tight, wide = (torch.where(best > 0, index, -1) for best, index in seen)
        own = weights[torch.arange(size), face.clamp(min=0)]
        rows.append((face, tight == wide, own / own.sum(-1, keepdim=True)))
    return Truth(*(torch.stack(x) for x in zip(*rows, strict=True)))


def inside_faces(device: torch.device) -> Figures:
    """Faces, barycentrics, depth and colour against the oracle, at all pixels that no edge is near: faces equal, weights
    to 2e-4, depth to 2e-6 of itself, shaded colour to 1e-4."""
    at, size = scene(32), 32
    exact = PerspectiveCamera(at.camera.K.double(), at.camera.R.double(), at.camera.t.double())
    screen, normals = exact.project(at.vertices.double()), vertex_normals(at.vertices.double(), at.faces)
    given = [x.float().to(device) for x in (screen, at.faces, at.albedo, normals, at.sh)]
    faces = given[1].long()
    frag = rasterize(given[0], faces, (size, size), "torch")
    image, _ = shade_fragments(frag, faces, *given[2:])
    wrong, sure, weights, depth, colour = 0, 0, 0.0, 0.0, 0.0
    for i in range(len(screen)):
        truth = oracle(screen[i], at.faces, size)
        where = truth.sure & (truth.face >= 0)
        corners, w = at.faces[truth.face[where]], truth.weights[where][:, :, None]
        z, n, c = ((w * x[corners]).sum(1) for x in (screen[i], normals[i], at.albedo.double()))
        lit = c * shade(torch.nn.functional.normalize(n, dim=-1)[None], at.sh[i : i + 1].double())[0]
        wrong += int((frag.face_id[i].cpu() != truth.face)[truth.sure].sum())
        sure += int(where.sum())
        weights = max(weights, float((frag.bary[i].cpu()[where] - w[:, :, 0]).abs().max()))
        depth = max(depth, float((frag.depth[i].cpu()[where] / z[:, 2] - 1).abs().max()))
        colour = max(colour, float((image[i].permute(1, 2, 0).cpu()[where] - lit).abs().max()))
    ok = wrong == 0 and weights < 2e-4 and depth < 2e-6 and colour < 1e-4
    return {"pixels": sure, "wrong": wrong, "weights": weights, "depth": depth, "colour": colour, "ok": ok}


def flips_on_edges(device: torch.device) -> Figures:
    """Pixels within rounding of an edge: at most a tenth show another face than in double precision, and those as often
    one of lower as of higher index (within four standard deviations)."""
    rng, cells, images = torch.Generator().manual_seed(0), 24, 4
    grid = torch.arange(cells + 1)
    corner = (grid[:-1, None] * (cells + 1) + grid[:-1]).reshape(-1, 1)
    split = [torch.cat([corner + k for k in ks], 1) for ks in ((0, cells + 2, 1), (0, cells + 1, cells + 2))]
    v, u = torch.meshgrid(2.0 * grid + 0.5, 2.0 * grid + 0.5, indexing="ij")  # corners, sides and diagonals on centres
    lower = higher = near = 0
    for _ in range(images):
        faces = torch.cat(split)[torch.randperm(2 * cells * cells, generator=rng)]
        screen = torch.stack([u, v, torch.full_like(u, 500.0)], -1).reshape(-1, 3).double()
        screen += 2e-5 * torch.randn(screen.shape, generator=rng, dtype=torch.float64)
        truth = oracle(screen, faces, 2 * cells + 1)
        frag = rasterize(screen.float()[None].to(device), faces.to(device), (2 * cells + 1,) * 2, "torch")
        found = frag.face_id[0].cpu()
        both = (found >= 0) & (truth.face >= 0) & ~truth.sure
        near += int(both.sum())
        lower, higher = lower + int((found < truth.face)[both].sum()), higher + int((found > truth.face)[both].sum())
    flips = lower + higher
    ok = flips <= near / 10 and abs(lower - higher) <= 4 * max(flips, 1) ** 0.5
    return {"near_an_edge": near, "to_lower": lower, "to_higher": higher, "ok": ok}


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
    return (x * torch.linspace(-1, 1, x.numel(), dtype=x.dtype).to(x.device).view(x.shape)).sum()


def gradients(device: torch.device) -> Figures:
    """Of a shaded image to screen, albedo, normals and light, and of a view rendered in others (equations 3 and 4 of MVF-Net)
    to vertices, images and cameras. Values to 1e-4, gradients to 1e-3."""
    at, size = scene(64), 64
    faces = at.faces

    def image(screen: Tensor, albedo: Tensor, normals: Tensor, sh: Tensor) -> Tensor:
        mesh = faces.to(screen.device)
        frag = rasterize(screen, mesh, (size, size), "torch")
        return weighted(shade_fragments(frag, mesh, albedo, normals, sh)[0]) + weighted(frag.depth) / 1e3

    shaded = compare(device, image, at.screen, at.albedo, vertex_normals(at.vertices, faces), at.sh)
    yaw = torch.tensor([0.0, -0.7, 0.7] * 2)
    R = euler_to_matrix(yaw, 0.1 * yaw + 0.03, 0.05 * yaw)
    pictures = torch.rand(2, 3, 3, size, size, generator=torch.Generator().manual_seed(0))
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
    ok = max(shaded[0], paired[0]) < 1e-4 and max(shaded[1], paired[1]) < 1e-3 and flips <= 3
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
    params["profile"], params["data"]["train"]["image_size"] = "checks", SIZE
    params["mvfnet"] |= {"image_size": SIZE, "n_id": K, "n_exp": E, "weights": {"lambda_1": 1e-3, "lambda_5": 1e-4}}
    params["mvfnet"]["peers"]["n_alb"], params["mvfnet"]["identity"]["dim"] = 5, 16
    for paper in papers.names():
        params[paper]["loop"] |= {"batch_size": 4, "precision": "32-true"}
    face, own = FaceModel.load(folder / FACE_MODEL), folder / "data/checks"
    write_training_set(own / "train", face, size=SIZE)
    write_starts(own, face, SIZE, K, E)
    data = TrainingSet(own / "train", "train", face)
    index, weight = face.face_index.numpy(), np.ones(len(data.mean), np.float32)
    arrays = build(data.vertices().numpy(), data.symmetry.numpy(), index, 12, weight)
    arrays |= {"faces": face.faces.numpy(), "landmarks": face.landmarks.numpy(), "face_index": index}
    save_npz_atomic(own / "siamese_3dmm.npz", **arrays)
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


def step(prepared: Prepared, device: torch.device, backward: bool = True) -> tuple[Tensor, list[Tensor]]:
    """Loss and gradients of a run's first batch."""
    task = prepared.task
    model = MixedPrecision(task.model.to(device), "32-true").train()
    batch = {k: v.to(device) for k, v in task.batch(0, 0, 1).items()}
    loss = task.loss(model, batch)
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
    """Every encoder and flow network at 64 px, and what every run's network regresses, on noise: float32 to 1e-4 of the
    CPU's, bfloat16 to 5 %."""
    rng = torch.Generator().manual_seed(0)
    pictures, found = torch.rand(4, 3, 3, SIZE, SIZE, generator=rng), {}

    def note(name: str, model: nn.Module, call: Callable[..., Any], *given: Tensor) -> None:
        want = call(model.eval(), *given)
        model, there = model.to(device), [x.to(device) for x in given]
        exact = call(model, *there)
        with torch.autocast(device.type, torch.bfloat16):
            rough = call(model, *there)
        found[name] = apart(exact, want), apart(rough, want)

    def regressed(model: Any, images: Tensor, K: Tensor) -> Tensor:
        return torch.cat([x.flatten() for x in model.reconstruct(Views(images, K)).parameters.values()])

    with torch.no_grad():
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


@contextmanager
def no_waiting(device: torch.device) -> Iterator[None]:
    """Anything that makes the host wait for the card is a RuntimeError."""
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")


def no_host_synchronisation(device: torch.device) -> Figures:
    """A training step of every run never waits for the card: loss, backward pass, update."""
    found = {}
    for name, prepared in each_run():
        task = prepared.task
        step(prepared, device)  # what moves to the card once moves now
        model = MixedPrecision(task.model, "32-true")
        batch = {k: v.to(device) for k, v in task.batch(1, 0, 1).items()}
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=device.type == "cuda")
        try:
            with no_waiting(device):
                task.loss(model, batch).backward()
                optimizer.step()
        except RuntimeError as error:
            found[name] = str(error).splitlines()[0]
    return {"waits": found, "ok": not found}


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
