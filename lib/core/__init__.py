"""Files, meshes, parameters, errors: what every other part of ``lib`` stands on. Imports numpy, nothing heavier."""

from lib.core.errors import InputError
from lib.core.files import (
    atomic_path,
    atomic_write_bytes,
    atomic_write_json,
    atomic_write_text,
    load_npz,
    save_npz_atomic,
)
from lib.core.mesh import Mesh, read_mesh, write_obj, write_ply
from lib.core.params import from_dict, load_params, section
from lib.core.progress import progress

__all__ = [
    "InputError",
    "Mesh",
    "atomic_path",
    "atomic_write_bytes",
    "atomic_write_json",
    "atomic_write_text",
    "from_dict",
    "load_npz",
    "load_params",
    "progress",
    "read_mesh",
    "save_npz_atomic",
    "section",
    "write_obj",
    "write_ply",
]
