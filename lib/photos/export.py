"""Write a textured head: GLB, OBJ + MTL + PNG, PLY, and read back what was written.

Units: OBJ and PLY are in millimetres, as everything in this repository. glTF demands metres, so the GLB is scaled by
1/1000. All are y up, face towards +z, which is also glTF's convention.
"""

import io
from pathlib import Path

import numpy as np
import trimesh
from PIL import Image
from trimesh.visual import TextureVisuals
from trimesh.visual.material import PBRMaterial

from lib.core.files import atomic_write_bytes, atomic_write_text
from lib.core.mesh import Mesh, write_ply
from lib.photos.images import eight_bit
from lib.photos.unwrap import Unwrap


def png_bytes(image: np.ndarray, optimize: bool = False) -> bytes:
    """(H, W, 3) float in [0, 1] -> PNG; ``optimize`` for a smaller file, more slowly."""
    buffer = io.BytesIO()
    Image.fromarray(eight_bit(image)).save(buffer, format="PNG", optimize=optimize)
    return buffer.getvalue()


def write_glb(path: str | Path, vertices: np.ndarray, layout: Unwrap, texture: np.ndarray) -> None:
    """One mesh with one texture, metres. Vertices on island borders are doubled, as glTF has one uv a vertex.

    Args:
        vertices: (N, 3) mm. layout: UV layout. texture: (T, T, 3) in [0, 1].
    """
    picture = Image.open(io.BytesIO(png_bytes(texture)))
    material = PBRMaterial(name="skin", baseColorTexture=picture, metallicFactor=0.0, roughnessFactor=0.9)
    mesh = trimesh.Trimesh(
        vertices=vertices[layout.vertex] / 1000.0,
        faces=layout.faces,
        visual=TextureVisuals(uv=layout.uv, material=material),
        process=False,
    )
    scene = trimesh.Scene()
    scene.add_geometry(mesh, geom_name="head")
    atomic_write_bytes(path, scene.export(file_type="glb"))


def write_obj_textured(path: str | Path, vertices: np.ndarray, layout: Unwrap, texture: np.ndarray) -> list[Path]:
    """OBJ with ``<name>.mtl`` and ``<name>.png`` beside it; vertices (N, 3) mm in the face model's own order, texture (T, T, 3).

    Returns:
        the three paths written.
    """
    path = Path(path)
    material, picture = path.with_suffix(".mtl"), path.with_suffix(".png")
    lines = [
        f"# millimetres, y up, face to +z; {len(vertices)} vertices in the face model's order",
        f"mtllib {material.name}",
    ]
    lines += [f"v {x:.4f} {y:.4f} {z:.4f}" for x, y, z in vertices]
    lines += [f"vt {u:.6f} {v:.6f}" for u, v in layout.uv]
    lines.append("usemtl skin")
    ours = layout.vertex[layout.faces] + 1
    lines += [
        f"f {a}/{i} {b}/{j} {c}/{k}"
        for (a, b, c), (i, j, k) in zip(ours.tolist(), (layout.faces + 1).tolist(), strict=True)
    ]
    atomic_write_bytes(picture, png_bytes(texture))
    atomic_write_text(material, f"newmtl skin\nKa 0 0 0\nKd 1 1 1\nKs 0 0 0\nillum 1\nmap_Kd {picture.name}\n")
    atomic_write_text(path, "\n".join(lines) + "\n")
    return [path, material, picture]


def write_ply_coloured(path: str | Path, vertices: np.ndarray, faces: np.ndarray, colors: np.ndarray) -> None:
    """PLY of vertices (N, 3) mm in the face model's order, faces (F, 3) and colours (N, 3) in [0, 1]."""
    write_ply(path, Mesh(vertices.astype(np.float32), faces, colors=np.clip(colors, 0, 1).astype(np.float32)))
