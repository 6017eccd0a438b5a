"""Triangle meshes: read OBJ, PLY and VRML, write OBJ and PLY, vertex order and count always kept.

Own readers of OBJ and VRML, because general mesh libraries merge, split or reorder their vertices, and every per-vertex
correspondence in this repository (landmarks, regions, true errors) hangs on the index of a vertex. PLY is trimesh's.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lib.core.errors import InputError
from lib.core.files import atomic_write_bytes


@dataclass
class Mesh:
    """A triangle mesh.

    Attributes:
        vertices: (N, 3) float, millimetres.
        faces: (F, 3) int64 indices into ``vertices``; (0, 3) for a bare point cloud.
        colors: (N, 3) float in [0, 1], RGB, or None.
        landmarks: (51,) or (68,) int vertex indices in iBUG order, or None.

    Raises:
        InputError: wrong shapes, non-finite coordinates, indices that point at no vertex.
    """

    vertices: np.ndarray
    faces: np.ndarray
    colors: np.ndarray | None = None
    landmarks: np.ndarray | None = None

    def __post_init__(self) -> None:
        self.vertices = np.asarray(self.vertices)
        if not np.issubdtype(self.vertices.dtype, np.floating):
            self.vertices = self.vertices.astype(np.float64)
        self.faces = np.asarray(self.faces, dtype=np.int64).reshape(-1, 3)
        if self.vertices.ndim != 2 or self.vertices.shape[1] != 3:
            raise InputError("mesh", f"vertices of shape (N, 3), found {self.vertices.shape}")
        if not np.isfinite(self.vertices).all():
            bad = int((~np.isfinite(self.vertices)).any(axis=1).sum())
            raise InputError("mesh", f"{bad} vertices with coordinates that are not finite numbers")
        count = len(self.vertices)
        if len(self.faces) and (self.faces.min() < 0 or self.faces.max() >= count):
            raise InputError(
                "mesh", f"face indices within 0..{count - 1}, found {self.faces.min()}..{self.faces.max()}"
            )
        if self.colors is not None:
            self.colors = np.asarray(self.colors)
            if self.colors.shape != self.vertices.shape:
                raise InputError("mesh", f"one colour a vertex {self.vertices.shape}, found {self.colors.shape}")
        if self.landmarks is not None:
            self.landmarks = np.asarray(self.landmarks, dtype=np.int64).ravel()
            if len(self.landmarks) and (self.landmarks.min() < 0 or self.landmarks.max() >= count):
                raise InputError("mesh", f"landmark indices within 0..{count - 1}")


def read_mesh(path: str | Path, *, require_faces: bool = True) -> Mesh:
    """Read .obj, .ply (ASCII or binary) or .wrl. Vertices keep the file's order; polygons become triangle fans.

    Raises:
        InputError: no such file, unknown suffix, damaged content, no vertices, or (if required) no faces.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(path, "no such file")
    readers: dict[str, Callable[[Path], Mesh]] = {".obj": _read_obj, ".ply": _read_ply, ".wrl": _read_wrl}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputError(path, f"expected one of {', '.join(readers)}", "convert it, keeping the order of the vertices")
    try:
        mesh = reader(path)
    except InputError as error:
        if error.path != "mesh":
            raise
        raise InputError(path, error.expected, error.advice) from error
    except (ValueError, IndexError, KeyError, OverflowError, MemoryError) as error:
        raise InputError(path, f"damaged {path.suffix[1:].upper()} content ({error})") from error
    if not len(mesh.vertices):
        raise InputError(path, "no vertices")
    if require_faces and not len(mesh.faces):
        raise InputError(path, f"{len(mesh.vertices)} vertices but no faces")
    return mesh


def check_millimetres(mesh: Mesh, path: str | Path, smallest: float = 60.0, largest: float = 2000.0) -> None:
    """Refuse a head whose bounding-box diagonal is not plausible in millimetres.

    Raises:
        InputError: saying which unit the numbers look like.
    """
    diagonal = float(np.linalg.norm(np.ptp(mesh.vertices, axis=0)))
    if smallest <= diagonal <= largest:
        return
    looks = "metres" if diagonal < 2.0 else "centimetres" if diagonal < smallest else "micrometres or arbitrary units"
    raise InputError(
        path, f"a head in millimetres; its bounding box measures {diagonal:.4g} (looks like {looks})", "rescale it"
    )


# ---------------------------------------------------------------------------------------------------------- reading


def _table(lines: list[bytes]) -> np.ndarray:
    """Whitespace-separated numbers, the same count on each line, as float64 (lines, columns)."""
    if not lines:
        return np.zeros((0, 3))
    flat = np.array(b" ".join(lines).split(), dtype=np.float64)
    if len(flat) % len(lines):
        raise ValueError("vertex lines of differing length")
    return flat.reshape(len(lines), -1)


def _fan(polygons: list[list[int]]) -> np.ndarray:
    """Polygons as triangle fans around their first corner; fewer than three corners give nothing."""
    triangles = [(p[0], p[i], p[i + 1]) for p in polygons for i in range(1, len(p) - 1)]
    return np.array(triangles, dtype=np.int64).reshape(-1, 3)


def _read_obj(path: Path) -> Mesh:
    """Wavefront OBJ: v (with optional r g b), f with any of v, v/t, v//n, v/t/n; negative indices count back."""
    vertex_lines: list[bytes] = []
    polygons: list[list[int]] = []
    for line in path.read_bytes().replace(b"\\\n", b" ").splitlines():
        if line[:2] in (b"v ", b"v\t"):
            vertex_lines.append(line[2:].split(b"#")[0])
        elif line[:2] in (b"f ", b"f\t"):
            corners = [int(word.split(b"/")[0]) for word in line[2:].split(b"#")[0].split()]
            if 0 in corners:
                raise ValueError("face index 0; OBJ counts from 1")
            polygons.append([c - 1 if c > 0 else len(vertex_lines) + c for c in corners])
    table = _table(vertex_lines)
    if table.shape[1] not in (3, 4, 6, 7):
        raise ValueError(f"{table.shape[1]} numbers on a vertex line")
    colors = table[:, -3:] if table.shape[1] >= 6 else None
    if colors is not None and colors.size and colors.max() > 1.0:
        colors = colors / 255.0
    return Mesh(table[:, :3], _fan(polygons), colors)


def _read_wrl(path: Path) -> Mesh:
    """VRML 2: the first IndexedFaceSet's Coordinate points and coordIndex."""
    text = path.read_bytes()
    if not text.startswith(b"#VRML V2"):
        raise InputError(path, "a file beginning '#VRML V2.0'")

    def numbers(key: bytes, start: int) -> tuple[np.ndarray, int]:
        at = text.find(key, start)
        if at < 0:
            raise InputError(path, f"an IndexedFaceSet with {key.decode()} [...]")
        opening = text.index(b"[", at)
        closing = text.index(b"]", opening)
        return np.array(text[opening + 1 : closing].replace(b",", b" ").split(), dtype=np.float64), closing

    start = max(text.find(b"IndexedFaceSet"), 0)
    points, _ = numbers(b"point", max(text.find(b"Coordinate", start), 0))
    indices, _ = numbers(b"coordIndex", start)
    ends = np.flatnonzero(indices == -1)
    runs = np.split(indices.astype(np.int64), ends + 1)
    return Mesh(points.reshape(-1, 3), _fan([[int(i) for i in run if i != -1] for run in runs]))


def _read_ply(path: Path) -> Mesh:
    """PLY, ASCII or binary, by trimesh without its processing: vertices as in the file, further properties ignored."""
    from trimesh.exchange.ply import load_ply

    try:
        found = load_ply(io.BytesIO(path.read_bytes()), fix_texture=False, prefer_color="vertex", skip_materials=True)
    except Exception as error:  # whatever a damaged file makes it stumble over
        reason = f"damaged PLY content ({type(error).__name__}: {error})"
        raise InputError(path, reason, "save it anew as triangles, keeping the order of the vertices") from error
    faces = np.asarray(found.get("faces", ()), dtype=np.int64)
    announced = {name: element["length"] for name, element in found["metadata"]["_ply_raw"].items()}
    for name, count in (("vertex", len(found.get("vertices", ()))), ("face", len(faces))):
        if count < announced.get(name, 0):
            raise InputError(path, f"{announced[name]} {name} entries announced, {count} found")
    if faces.size and faces.shape[-1] != 3:
        faces = _fan(faces.tolist())
    colors = found.get("vertex_colors")
    if colors is not None:
        colors = np.asarray(colors)[:, :3]
        colors = colors / 255.0 if colors.dtype == np.uint8 or colors.max() > 1.0 else colors
    return Mesh(np.asarray(found.get("vertices", np.zeros((0, 3))), dtype=np.float64), faces, colors)


# ---------------------------------------------------------------------------------------------------------- writing


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Area-weighted unit normals (N, 3) float64 of vertices (N, 3) and faces (F, 3); zero where no face has an area.

    With derivatives: `lib.renderers.normals`; for many meshes at once: `lib.renderers.synthesis.vertex_normals_numba`.
    """
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    normal = np.cross(b - a, c - a)
    total = np.zeros((len(vertices), 3))
    for axis in range(3):  # bincount is several times faster than add.at
        for corner in range(3):
            total[:, axis] += np.bincount(faces[:, corner], normal[:, axis], minlength=len(vertices))
    length = np.linalg.norm(total, axis=1, keepdims=True)
    return total / np.where(length > 0, length, 1.0)


def write_obj(path: str | Path, mesh: Mesh) -> None:
    """Wavefront OBJ, four decimals (a tenth of a micrometre), colours after the coordinates where there are any."""
    rows = mesh.vertices if mesh.colors is None else np.concatenate([mesh.vertices, mesh.colors], axis=1)
    line = "v" + " %.4f" * rows.shape[1] + "\n"
    text = (line * len(rows)) % tuple(rows.ravel().tolist())
    text += ("f %d %d %d\n" * len(mesh.faces)) % tuple((mesh.faces + 1).ravel().tolist())
    atomic_write_bytes(path, text.encode("ascii"))


def write_ply(path: str | Path, mesh: Mesh) -> None:
    """Binary little-endian PLY, float32 coordinates, 8-bit colours."""
    from trimesh import Trimesh
    from trimesh.exchange.ply import export_ply

    levels = None if mesh.colors is None else np.clip(np.rint(mesh.colors * 255.0), 0, 255).astype(np.uint8)
    plain = Trimesh(mesh.vertices, mesh.faces, vertex_colors=levels, process=False)
    atomic_write_bytes(path, export_ply(plain, vertex_normal=False, include_attributes=False))


def components(faces: np.ndarray, n_vertices: int) -> np.ndarray:
    """Number (N,) of the connected piece that each vertex belongs to by the triangles (F, 3); a vertex without is alone."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]]])
    graph = coo_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(n_vertices, n_vertices))
    return connected_components(graph, directed=False)[1]
