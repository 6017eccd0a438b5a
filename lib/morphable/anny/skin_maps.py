"""Where on the head each skin property lives: soft maps over the vertices of the mean face (build stage only).

Coordinates are those of ``anatomy``: mm on the mean face, x folded to one side, so that all maps are symmetric.
"""

import numpy as np

from lib.core.mesh import vertex_normals
from lib.morphable.anny.anatomy import (
    brow_distance,
    ear_mask,
    eyeballs,
    hairline,
    only_in,
    support,
)  # fmt: skip
from lib.morphable.anny.source import AnnyHead

N_WAVES = 48
FAR = 1.0e3


def smoothstep(low: float, high: float, value: np.ndarray) -> np.ndarray:
    """Element by element 0 below ``low``, 1 above ``high``, smooth between; ``high`` < ``low`` falls instead of rising."""
    t = np.clip((value - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def blob(points: np.ndarray, centre: tuple[float, float, float], radius: tuple[float, float, float]) -> np.ndarray:
    """Gaussian bump (N,) with standard deviations ``radius`` in mm."""
    return np.exp(-0.5 * (((points - centre) / radius) ** 2).sum(1))


def skin_arrays(head: AnnyHead, mean: np.ndarray, seed: int = 0) -> dict[str, np.ndarray]:
    """All tables of ``SkinModel`` by name (prefix ``skin_``), from the mean face (N, 3) mm; fields are (N,) or (M, N)."""
    folded = mean * [1.0, 1.0, 1.0]
    folded[:, 0] = np.abs(folded[:, 0])
    x, y, z = folded.T
    normal = vertex_normals(mean, head.faces)
    left, right = eyeballs(head)
    cavity = only_in(head, ("mouth_cavity", "tongue"))
    ears = ear_mask(head)
    upper = smoothstep(0.10, 0.42, support(head, "mouth-upperlip-volume-incr"))
    lower = smoothstep(0.10, 0.42, support(head, "mouth-lowerlip-volume-incr"))
    lips = np.maximum(upper, lower) * smoothstep(27.5, 23.0, x)
    seam = seam_map(head)
    lips = np.maximum(lips, np.minimum(1.6 * smooth(seam, head.faces, 1), 1.0))  # the inner rim is lip as well
    lid = lid_margin(head)

    maps: dict[str, np.ndarray] = {
        "one": np.ones(len(mean)),
        "cheek": blob(folded, (41, -14, -4), (15, 14, 26)),
        "nose": np.maximum(blob(folded, (0, -20, 29), (11, 9, 13)), 0.8 * blob(folded, (14, -25, 12), (5, 6, 8))),
        "ear": ears * smoothstep(64.0, 76.0, x),
        "chin": blob(folded, (0, -80, 10), (15, 9, 16)),
        "forehead": blob(folded, (0, 62, 5), (40, 18, 40)),
        "under_eye": blob(folded, (29, 8.5, -2), (10, 4.0, 12)),
        "lid": blob(folded, (31, 25.5, -2), (13, 4.5, 12)),
        "lips": lips,
        "beard": beard_map(folded, lips) * ~ears,
        "moustache": moustache_map(folded, lips),
        "goatee": smoothstep(30.0, 20.0, x)
        * smoothstep(-62.0, -70.0, y)
        * smoothstep(-112.0, -100.0, y)
        * (z > -40)
        * (1 - lips),
        "neck": smoothstep(-85.0, -110.0, y) * (z < 10),
        "tan": np.clip(normal[:, 1] * 0.6 + 0.4, 0, 1) * smoothstep(-60.0, 20.0, y + z),
        "freckle": np.maximum(blob(folded, (30, -8, 5), (24, 11, 22)), blob(folded, (0, 0, 18), (12, 14, 14))),
        "crease": crease_map(mean, head, normal),
        "lash": lid,
        "seam": seam,
    }
    for name in maps:
        rounds = {"one": 0, "lash": 0, "lips": 0, "seam": 1}.get(name, 2)
        maps[name] = smooth(0.5 * (maps[name] + maps[name][head.symmetry]), head.faces, rounds)
    distance = {
        "hairline": np.where(ears, -60.0, hairline(mean)),
        "brow": brow_distance(mean),
        "brow_along": brow_along(folded),
        "polar": np.full(len(mean), FAR),
        "mouth_depth": np.where(cavity, np.clip(12.0 - z, 1.0, 60.0), -1.0),
    }
    distance["hairline"] = smooth(0.5 * (distance["hairline"] + distance["hairline"][head.symmetry]), head.faces, 2)
    distance["hairline"][ears] = -40.0
    distance["hairline"] = smooth(distance["hairline"], head.faces, 1)
    distance["polar"][left] = distance["polar"][right] = head.eye_polar
    # Height on the eyeball (-1 bottom .. 1 top): lids shade the upper part.
    lift = np.zeros(len(mean))
    for ball in (left, right):
        lift[ball] = (mean[ball, 1] - mean[ball[0], 1]) / 12.0
    tongue = only_in(head, ("tongue",))
    rng = np.random.default_rng([seed, 7])
    return {
        "skin_map_names": np.array(list(maps)),
        "skin_maps": np.stack(list(maps.values())).astype(np.float16),
        **{f"skin_{name}": value.astype(np.float32) for name, value in distance.items()},
        "skin_eye_lift": lift.astype(np.float32),
        "skin_tongue": tongue,
        "skin_waves": waves(mean, rng).astype(np.float16),
    }


def smooth(values: np.ndarray, faces: np.ndarray, rounds: int) -> np.ndarray:
    """Average values (N,) with the neighbours, to take the mesh's steps out of drawn edges; faces (F, 3)."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    count = np.bincount(edges.ravel(), minlength=len(values))
    for _ in range(rounds):
        total = np.bincount(edges[:, 0], values[edges[:, 1]], len(values))
        total += np.bincount(edges[:, 1], values[edges[:, 0]], len(values))
        values = 0.5 * values + 0.5 * total / np.maximum(count, 1)
    return values


def moustache_map(folded: np.ndarray, lips: np.ndarray) -> np.ndarray:
    """(N,) the band between nose and upper lip, drooping past the corners of the mouth."""
    x, y = folded[:, 0], folded[:, 1]
    top = np.interp(x, [0.0, 10.0, 20.0, 30.0], [-33.0, -33.0, -39.0, -48.0])
    bottom = np.interp(x, [0.0, 14.0, 22.0, 30.0], [-47.0, -49.0, -57.0, -62.0])
    return smoothstep(2.5, -2.5, y - top) * smoothstep(-2.5, 2.5, y - bottom) * smoothstep(31.0, 25.0, x) * (1.0 - lips)


def waves(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(W, N) plane waves at points (N, 3), W = N_WAVES, of wavelengths 9 to 70 mm with unit variance: the basis of blotches."""
    length = np.geomspace(9.0, 70.0, N_WAVES)
    direction = rng.standard_normal((N_WAVES, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    phase = rng.uniform(0, 2 * np.pi, N_WAVES)
    return np.sqrt(2.0) * np.cos(points @ (2 * np.pi * direction / length[:, None]).T + phase).T


def lid_margin(head: AnnyHead) -> np.ndarray:
    """(N,) 1 on the rim where eyelid skin turns into the socket, where lashes grow."""
    socket = head.segments["eye_cavity.L"] | head.segments["eye_cavity.R"]
    rim = np.zeros(len(head.template), bool)
    rim[np.intersect1d(head.faces[socket], head.faces[head.segments["head"]])] = True
    return rim.astype(float)


def seam_map(head: AnnyHead) -> np.ndarray:
    """(N,) 1 on the ring where lip skin turns into the mouth: always in shade."""
    ring = np.zeros(len(head.template), bool)
    ring[np.intersect1d(head.faces[head.segments["mouth_cavity"]], head.faces[head.segments["head"]])] = True
    return ring.astype(float)


def crease_map(mean: np.ndarray, head: AnnyHead, normal: np.ndarray) -> np.ndarray:
    """(N,) concavity in [0, 1]: folds are darker and redder than what surrounds them."""
    total, count = np.zeros_like(mean), np.zeros(len(mean))
    for k in range(3):
        for other in (1, 2):
            np.add.at(total, head.faces[:, k], mean[head.faces[:, (k + other) % 3]])
            np.add.at(count, head.faces[:, k], 1.0)
    hollow = ((total / np.maximum(count, 1)[:, None] - mean) * normal).sum(1)
    return smoothstep(0.03, 0.8, hollow)


def brow_along(folded: np.ndarray) -> np.ndarray:
    """(N,) position along the eyebrow: 0 at the inner end, 1 at the outer one."""
    return np.clip((folded[:, 0] - 11.0) / 42.0, -0.2, 1.2)


def beard_map(folded: np.ndarray, lips: np.ndarray) -> np.ndarray:
    """(N,) where a full beard grows: upper lip, chin, jaw, lower cheeks up to the sideburns, upper neck."""
    x, y, z = folded.T
    # Upper edge: from under the nose, past the mouth corner, up along the jaw's back edge to the ear.
    edge = np.interp(x, [0.0, 12.0, 24.0, 34.0, 46.0, 58.0, 70.0], [-33.0, -34.0, -44.0, -52.0, -46.0, -28.0, -2.0])
    top = smoothstep(5.0, -5.0, y - edge)
    bottom = smoothstep(-125.0, -104.0, y)
    behind = smoothstep(-82.0, -66.0, z)
    return top * bottom * behind * (1.0 - lips) * smoothstep(24.0, 20.0, np.where(y > -36, z, 0.0))
