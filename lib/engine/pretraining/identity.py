"""Train the identity network that Genova et al. compare renderings and photographs with, to tell synthetic people apart
whatever the view, the light and the surroundings.

    python -m lib.engine.pretraining.identity

Reads data/<profile>/train, starts from the shared pretrained encoder, and writes
data/<profile>/identity/<backbone>.safetensors. When mvfnet.identity.path names a file of public weights
(`lib.models.identity_net`), nothing is trained and they are measured instead. Recognition rates on people who took no part
are written to results/mvfnet/<profile>/identity.csv and .md, beside what the encoder knew before.
"""

from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from lib.core.checkpoint import load_weights
from lib.core.command import command
from lib.core.files import fingerprint
from lib.core.params import from_dict, material, section
from lib.core.processes import everyone, share
from lib.datasets.training.read import TrainingSet
from lib.engine.loop import LoopConfig
from lib.engine.pretraining.recipe import markdown, pretrain, write_table
from lib.engine.runs import encoder_path
from lib.engine.sampling import draw
from lib.models.identity_net import IdentityNet, load_identity_net
from lib.models.parts.encoders import build_encoder
from lib.morphable.model import FACE_MODEL, FaceModel
from lib.renderers.cameras import PerspectiveCamera
from lib.renderers.rasterize import rasterize, use

N_MEASURED = 500
"""People that recognition is measured on: one among so many is looked for."""


@dataclass
class IdentityConfig:
    """mvfnet.identity of params.yaml. path: public weights, or null to train; dim: length of the feature vector;
    temperature: of the softmax; loop: the training loop's settings, its batch size in people."""

    path: Path | None = None
    dim: int = 128
    temperature: float = 0.1
    loop: dict[str, Any] = field(default_factory=dict)


def identity_config(params: dict[str, Any]) -> IdentityConfig:
    """The section mvfnet.identity. Raises InputError when it is absent or malformed."""
    return from_dict(IdentityConfig, section(params, "mvfnet.identity"), "params.yaml: mvfnet.identity")


def identity_path(profile: str, backbone: str) -> Path:
    """Where the network trained here is."""
    return Path("data") / profile / "identity" / f"{backbone}.safetensors"


def load_recogniser(params: dict[str, Any]) -> nn.Module:
    """The frozen identity network of the active parameters: public weights when named, else the one trained here."""
    config = identity_config(params)
    return load_identity_net(identity_path(material(params), params["mvfnet"]["backbone"]), config.path)


class IdentityTask:
    """Two photographs of each of B people; every one must find its partner among all (a cosine softmax).

    A network that has seen millions of photographs ignores background, hair and the colour of the light. This one learns
    it in a minute: half of the photographs are cut out along the cropped face, which also makes them look like the
    renderings that it will be asked about, and all change in colour, contrast and shading at random.

    Args:
        model: images (B, 3, S, S) to unit features.
        faces: (Fc, 3) triangles of the cropped face; face_index: (Nc,) its vertices.
        temperature: of the softmax.
    """

    def __init__(
        self,
        model: nn.Module,
        faces: Tensor,
        face_index: Tensor,
        train: TrainingSet,
        val: TrainingSet,
        batch_size: int,
        seed: int,
        temperature: float = 0.1,
        val_subjects: int = 500,
    ) -> None:
        self.model, self.faces, self.face_index = model, faces, face_index
        self.train, self.val, self.val_subjects = train, val, min(val_subjects, len(val))
        self.batch_size, self.seed, self.temperature = batch_size, seed, temperature

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> dict[str, Tensor]:
        """images (2 B, 3, S, S): one view of B people, then another of the same. Every process makes the whole batch."""
        rng = np.random.default_rng([self.seed, step])
        index, generator = draw(rng, len(self.train), self.batch_size)
        batch = self.train.batch(index, generator)
        b, v = batch.yaw.shape
        views = torch.stack([torch.randperm(v, generator=generator)[:2] for _ in range(b)], 1)  # (2, B)
        row = torch.arange(b).expand(2, b)
        images, K, R, t = (getattr(batch, k)[row, views].flatten(0, 1) for k in ("images", "K", "R", "t"))
        mask = face_mask(
            batch.vertices[:, self.face_index].repeat(2, 1, 1), PerspectiveCamera(K, R, t), self.faces, images
        )
        cut = torch.rand(2 * b, generator=generator) < 0.5
        images = vary(images, generator)
        images = torch.where(cut[:, None, None, None], cut_out(images, mask, generator), images)
        return {"images": images.unflatten(0, (2, b))[:, share(b, rank, world_size)].flatten(0, 1)}

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """Cross entropy of each photograph's likeness to all others, the partner being the right one."""
        one, two = (everyone(x) for x in model(batch["images"]).chunk(2))
        likeness = one @ two.T / self.temperature
        partner = torch.arange(len(one), device=one.device)
        return (cross_entropy(likeness, partner) + cross_entropy(likeness.T, partner)) / 2

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """Shares of errors on unseen people; see `recognise`."""
        figures = recognise(model, self.val, self.faces, self.face_index, self.val_subjects)
        return {
            f"val_{name}_error_{kind}": 1 - value for kind, found in figures.items() for name, value in found.items()
        }


@torch.no_grad()
def recognise(
    model: nn.Module | Callable[[Tensor], Tensor], data: TrainingSet, faces: Tensor, face_index: Tensor, people: int
) -> dict[str, dict[str, float]]:
    """Rank-1 rate and verification accuracy of the first `people` of a split: side views looked for among front views.

    {"photo": photographs as they are, "cut": the probe's face cut out}, each with "rank1" and "verification".
    """
    batch = data.batch(np.arange(min(people, len(data))), symmetrise=False)
    parameter = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    device = torch.device("cpu") if parameter is None else parameter.device
    yaw, row = batch.yaw.abs(), torch.arange(len(batch.yaw))
    front, side = yaw.argmin(1), yaw.argmax(1)
    camera = PerspectiveCamera(batch.K[row, side], batch.R[row, side], batch.t[row, side])
    probe = batch.images[row, side]
    mask = face_mask(batch.vertices[:, face_index], camera, faces, probe)
    alone = cut_out(probe, mask, torch.Generator().manual_seed(0))
    gallery, whole, cut = (
        torch.cat([model(x[i : i + 100].to(device)) for i in range(0, len(x), 100)]).float().cpu()
        for x in (batch.images[row, front], probe, alone)
    )
    rates = {"photo": recognition(whole @ gallery.T), "cut": recognition(cut @ gallery.T)}
    return {kind: {"rank1": rank1, "verification": accuracy} for kind, (rank1, accuracy) in rates.items()}


def recognition(likeness: Tensor) -> tuple[float, float]:
    """Rank-1 rate and verification accuracy of a square matrix (S, S): row i and column i are one person.

    Verification: pairs accepted above a threshold, the best one, with people and strangers counted half each.
    """
    s = len(likeness)
    rank1 = float((likeness.argmax(1) == torch.arange(s)).float().mean())
    own = likeness.diagonal().sort().values
    other = likeness[~torch.eye(s, dtype=torch.bool)].sort().values
    missed = torch.arange(s) / s  # at the threshold own[i], i people are below it
    accepted = 1 - torch.searchsorted(other, own) / len(other)
    return rank1, float(1 - ((missed + accepted) / 2).min())


def face_mask(vertices: Tensor, camera: PerspectiveCamera, faces: Tensor, images: Tensor) -> Tensor:
    """(B, H, W) bool: pixels of images (B, 3, H, W) that show the cropped face of vertices (B, Nc, 3)."""
    return rasterize(camera.project(vertices), faces, (images.shape[-2], images.shape[-1])).mask


def cut_out(images: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
    """The face before a plain background of random brightness."""
    level = torch.rand(len(images), 1, 1, 1, generator=generator)
    return torch.where(mask[:, None], images, level)


def vary(images: Tensor, generator: torch.Generator) -> Tensor:
    """Photographs (B, 3, H, W) under another light: white balance, contrast, and a ramp of brightness across the image."""
    b, _, h, w = images.shape

    def draw(*shape: int) -> Tensor:
        return torch.rand(b, *shape, generator=generator) * 2 - 1

    power = torch.exp(0.35 * draw(1, 1, 1))
    gain = torch.exp(0.25 * draw(1, 1, 1) + 0.12 * draw(3, 1, 1))
    x, y = torch.linspace(-1, 1, w)[None, None, None], torch.linspace(-1, 1, h)[None, None, :, None]
    ramp = 1 + 0.45 * (draw(1, 1, 1) * x + draw(1, 1, 1) * y)
    return (images.clamp(min=1e-3) ** power * gain * ramp).clamp(0, 1)


def train_identity(params: dict[str, Any]) -> dict[str, float]:
    """Train and write the network; returns its last figures. Raises InputError for missing inputs."""
    profile, backbone, config = material(params), params["mvfnet"]["backbone"], identity_config(params)
    loop = from_dict(LoopConfig, config.loop, "params.yaml: mvfnet.identity.loop")
    face = FaceModel.load(FACE_MODEL)
    root = Path("data") / profile / "train"
    torch.manual_seed(loop.seed)
    net = IdentityNet(backbone, config.dim)
    start = encoder_path(profile, backbone)
    load_weights(start, net.encoder)
    people, others = TrainingSet(root, "train", face), TrainingSet(root, "val", face)
    surface = face.cropped_faces(), face.face_index
    task = IdentityTask(net, *surface, people, others, loop.batch_size, loop.seed, config.temperature)
    header = {"kind": "identity", "backbone": backbone, "dim": config.dim}
    identity = header | {
        "temperature": config.temperature,
        "start": fingerprint(start),
        "face": fingerprint(FACE_MODEL),
        "data": people.signature,
    }
    return pretrain(task, net, loop, identity_path(profile, backbone), identity, **header) or {}


def measure(params: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of identity.csv: recognition rates of the recogniser in use, and of the features that it started from."""
    profile, backbone = material(params), params["mvfnet"]["backbone"]
    face = FaceModel.load(FACE_MODEL)
    people = TrainingSet(Path("data") / profile / "train", "test", face)
    encoder = build_encoder(backbone)
    load_weights(encoder_path(profile, backbone), encoder)
    public = identity_config(params).path
    networks: dict[str, nn.Module] = {
        public.name if public else "trained here": load_recogniser(params),
        "pretrained encoder": nn.Sequential(encoder.eval(), Unit()),
    }
    rows = []
    for name, net in networks.items():
        for probe, rates in recognise(net, people, face.cropped_faces(), face.face_index, N_MEASURED).items():
            shown = {k: round(v, 4) for k, v in rates.items()}
            rows.append({"network": name, "probe": probe, "people": min(N_MEASURED, len(people)), **shown})
    return rows


class Unit(nn.Module):
    """Vectors (B, D) at unit length."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, D) to (B, D)."""
        return normalize(x.float(), dim=1)


def table(rows: list[dict[str, Any]]) -> str:
    """Rows of identity.csv as Markdown."""
    probes = {"photo": "photograph", "cut": "face cut out"}
    cells = [
        [r["network"], probes[r["probe"]], r["people"], f"{r['rank1']:.1%}", f"{r['verification']:.1%}"] for r in rows
    ]
    return (
        "# Recognition rates of the identity network\n\n"
        "Side views looked for among the front views of people who took no part in training. Rank 1: the most similar front "
        "view is the same person's. Verification: share of pairs judged rightly at the best threshold, same people and "
        "strangers counted half each (chance is 50 %). The network's features are what Genova et al.'s loss compares.\n\n"
    ) + markdown(["network", "probe", "people", "rank 1", "verification"], cells, text_columns=2)


@command(__doc__, params=True)
def main(options: Namespace) -> None:
    params = options.params
    use(params)
    config = identity_config(params)
    if config.path is None:
        print(train_identity(params))
    rows = measure(params)
    facts = {"data": "training twin, test split", "subjects": rows[0]["people"], "seeds": [config.loop.get("seed", 0)]}
    out = Path("results/mvfnet") / material(params) / "identity"
    write_table(out, rows, table(rows), profile=material(params), **facts)
    print(*rows, sep="\n")


if __name__ == "__main__":
    raise SystemExit(main())
