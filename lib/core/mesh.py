"""Triangle meshes: read OBJ, PLY and VRML, write OBJ and PLY, vertex order and count always kept.

Own readers, because general mesh libraries merge, split or reorder vertices, and every per-vertex correspondence in
this repository (landmarks, regions, true errors) hangs on the index of a vertex.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lib.core.errors import InputError
from lib.core.files import atomic_write_bytes

_PLY_TYPES = {
    **dict.fromkeys(("char", "int8"), "i1"),
    **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"),
    **dict.fromkeys(("ushort", "uint16"), "u2"),
    **dict.fromkeys(("int", "int32"), "i4"),
    **dict.fromkeys(("uint", "uint32"), "u4"),
    **dict.fromkeys(("float", "float32"), "f4"),
    **dict.fromkeys(("double", "float64"), "f8"),
}


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
    """PLY 1.0, ASCII or binary, vertex element with x y z (and red green blue), face element with an index list."""
    content = path.read_bytes()
    if not content.startswith(b"ply"):
        raise InputError(path, "a file beginning 'ply'")
    end = content.find(b"end_header")
    if end < 0:
        raise InputError(path, "a PLY header closed by end_header")
    body = content[content.index(b"\n", end) + 1 :]
    form = ""
    elements: list[tuple[str, int, list[list[str]]]] = []
    for words in (line.split() for line in content[:end].decode("ascii", "replace").splitlines()):
        if words[:1] == ["format"]:
            form = words[1]
        elif words[:1] == ["element"]:
            elements.append((words[1], int(words[2]), []))
        elif words[:1] == ["property"]:
            elements[-1][2].append(words[1:])
    if form not in ("ascii", "binary_little_endian", "binary_big_endian"):
        raise InputError(path, f"ascii or binary PLY, found format {form or 'missing'}")
    if form == "ascii":
        return _ply_mesh(*_ply_ascii(body, elements))
    return _ply_mesh(*_ply_binary(body, elements, "<" if "little" in form else ">"))


_Elements = list[tuple[str, int, list[list[str]]]]
_Parsed = tuple[dict[str, np.ndarray], list[list[int]] | np.ndarray]


def _ply_ascii(body: bytes, elements: _Elements) -> _Parsed:
    lines = [line for line in body.splitlines() if line.strip()]
    columns: dict[str, np.ndarray] = {}
    polygons: list[list[int]] = []
    at = 0
    for name, count, properties in elements:
        block, at = lines[at : at + count], at + count
        if len(block) < count:
            raise ValueError(f"{count} {name} lines announced, {len(block)} found")
        if name == "vertex":
            table = _table(block)
            columns = {words[-1]: table[:, i] for i, words in enumerate(properties) if count}
        elif name == "face":
            for row in (line.split() for line in block):
                size = int(row[0])
                if len(row) < size + 1:
                    raise ValueError("a face line shorter than its count says")
                polygons.append([int(word) for word in row[1 : size + 1]])
    return columns, polygons


def _ply_binary(body: bytes, elements: _Elements, order: str) -> _Parsed:
    columns: dict[str, np.ndarray] = {}
    polygons: list[list[int]] | np.ndarray = []
    at = 0
    for name, count, properties in elements:
        if not any(words[0] == "list" for words in properties):
            kind = np.dtype([(words[-1], order + _PLY_TYPES[words[0]]) for words in properties])
            rows = np.frombuffer(body, kind, count, at)
            at += kind.itemsize * count
            if name == "vertex":
                columns = {field: rows[field].astype(np.float64) for field in kind.names or ()}
            continue
        block, at = _ply_binary_lists(body, at, count, properties, order)
        if name == "face":
            polygons = block
    return columns, polygons


def _ply_binary_lists(
    body: bytes, at: int, count: int, properties: list[list[str]], order: str
) -> tuple[list[list[int]] | np.ndarray, int]:
    """One element with list properties; the first list is the polygon. All-triangle blocks take the fast way."""
    if len(properties) == 1:
        _, size, item, _ = properties[0]
        kind = np.dtype([("n", order + _PLY_TYPES[size]), ("i", order + _PLY_TYPES[item], 3)])
        if at + kind.itemsize * count <= len(body):
            rows = np.frombuffer(body, kind, count, at)
            if (rows["n"] == 3).all():
                return rows["i"].astype(np.int64), at + kind.itemsize * count
    polygons: list[list[int]] = []
    for _ in range(count):
        polygon: list[int] | None = None
        for words in properties:
            if words[0] == "list":
                size_type, item_type = np.dtype(order + _PLY_TYPES[words[1]]), np.dtype(order + _PLY_TYPES[words[2]])
                length = int(np.frombuffer(body, size_type, 1, at)[0])
                values = np.frombuffer(body, item_type, length, at + size_type.itemsize)
                at += size_type.itemsize + item_type.itemsize * length
                polygon = values.astype(np.int64).tolist() if polygon is None else polygon
            else:
                at += np.dtype(_PLY_TYPES[words[0]]).itemsize
        polygons.append(polygon or [])
    return polygons, at


def _ply_mesh(columns: dict[str, np.ndarray], polygons: list[list[int]] | np.ndarray) -> Mesh:
    if not {"x", "y", "z"} <= set(columns):
        raise ValueError("no x, y, z among the vertex properties")
    vertices = np.stack([columns[axis] for axis in "xyz"], axis=1)
    colors = None
    if {"red", "green", "blue"} <= set(columns):
        colors = np.stack([columns[channel] for channel in ("red", "green", "blue")], axis=1)
        colors = colors / 255.0 if colors.size and colors.max() > 1.0 else colors
    return Mesh(vertices, polygons if isinstance(polygons, np.ndarray) else _fan(polygons), colors)


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
    fields = [(axis, "<f4") for axis in "xyz"]
    header = [
        "ply",
        "format binary_little_endian 1.0",
        "comment unit: millimetre",
        f"element vertex {len(mesh.vertices)}",
    ]
    header += [f"property float {axis}" for axis in "xyz"]
    if mesh.colors is not None:
        fields += [(channel, "u1") for channel in ("red", "green", "blue")]
        header += [f"property uchar {channel}" for channel in ("red", "green", "blue")]
    header += [f"element face {len(mesh.faces)}", "property list uchar int vertex_indices", "end_header"]
    vertices = np.zeros(len(mesh.vertices), dtype=fields)
    for i, axis in enumerate("xyz"):
        vertices[axis] = mesh.vertices[:, i]
    if mesh.colors is not None:
        levels = np.clip(np.rint(mesh.colors * 255.0), 0, 255)
        for i, channel in enumerate(("red", "green", "blue")):
            vertices[channel] = levels[:, i]
    faces = np.zeros(len(mesh.faces), dtype=[("n", "u1"), ("i", "<i4", 3)])
    faces["n"], faces["i"] = 3, mesh.faces
    atomic_write_bytes(path, "\n".join(header).encode("ascii") + b"\n" + vertices.tobytes() + faces.tobytes())
