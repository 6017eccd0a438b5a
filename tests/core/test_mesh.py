"""Meshes: order and count survive every format; damaged files are named, not guessed at."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lib.core.errors import InputError
from lib.core.mesh import Mesh, check_millimetres, read_mesh, write_obj, write_ply

SQUARE = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], dtype=float)


@st.composite
def meshes(draw):
    count = draw(st.integers(3, 20))
    coordinate = st.floats(-1e4, 1e4, width=32)
    vertices = draw(arrays(np.float64, (count, 3), elements=coordinate))
    faces = draw(arrays(np.int64, st.tuples(st.integers(1, 15), st.just(3)), elements=st.integers(0, count - 1)))
    colors = draw(st.none() | arrays(np.float64, (count, 3), elements=st.floats(0, 1)))
    return Mesh(vertices, faces, colors)


@given(mesh=meshes(), suffix=st.sampled_from([".obj", ".ply"]))
def test_round_trip_keeps_order_count_and_values(tmp_path_factory, mesh, suffix):
    """Duplicate vertices and unused ones included: nothing may be merged, dropped or reordered."""
    path = tmp_path_factory.mktemp("mesh") / f"m{suffix}"
    (write_obj if suffix == ".obj" else write_ply)(path, mesh)
    read = read_mesh(path)
    np.testing.assert_allclose(read.vertices, mesh.vertices, atol=6e-5 if suffix == ".obj" else 1e-3, rtol=1e-7)
    np.testing.assert_array_equal(read.faces, mesh.faces)
    if mesh.colors is None:
        assert read.colors is None
    else:
        np.testing.assert_allclose(read.colors, mesh.colors, atol=6e-5 if suffix == ".obj" else 1 / 509)


BIG_ENDIAN = b"".join(struct.pack(">3d", *v) for v in SQUARE) + b"".join(
    struct.pack(">B3IB6f", 3, *corners, 6, *(0.1 * k for k in range(6))) for corners in ([0, 1, 2], [0, 2, 3])
)


@pytest.mark.parametrize(
    ("name", "content", "faces"),
    [
        (  # comments, groups, polygons, numbers from the end, broken lines
            "m.obj",
            "# comment\nmtllib x.mtl\no head\nv 0 0 0 # origin\nv 1 0 0\r\nv\t1 1 0\nv 0 1 0\nvt 0 0\nvn 0 0 1\ng a\n"
            "usemtl skin\ns off\nf 1/1/1 2/1/1 3/1/1 4/1/1\nf -4//1 -3//1 -2//1\nf 1/1 2/1 \\\n3/1\nl 1 2\n",
            [[0, 1, 2], [0, 2, 3], [0, 1, 2], [0, 1, 2]],
        ),
        (  # quads and further properties
            "m.ply",
            "ply\nformat ascii 1.0\ncomment made by hand\nelement vertex 4\nproperty float x\nproperty float y\n"
            "property float z\nproperty float quality\nelement face 1\nproperty list uchar int vertex_indices\n"
            "end_header\n0 0 0 9\n1 0 0 9\n1 1 0 9\n0 1 0 9\n4 0 1 2 3\n",
            [[0, 1, 2], [0, 2, 3]],
        ),
        (  # texture coordinates that differ by face must not double a vertex
            "m.ply",
            b"ply\nformat binary_big_endian 1.0\nelement vertex 4\nproperty double x\nproperty double y\n"
            b"property double z\nelement face 2\nproperty list uchar uint vertex_index\n"
            b"property list uchar float texcoord\nend_header\n" + BIG_ENDIAN,
            [[0, 1, 2], [0, 2, 3]],
        ),
        (
            "m.wrl",
            "#VRML V2.0 utf8\nShape { geometry IndexedFaceSet { coord Coordinate { point [ 0 0 0, 1 0 0, 1 1 0, 0 1 0, ] }\n"
            "texCoord TextureCoordinate { point [ 0 0, 1 0 ] }\ncoordIndex [ 0, 1, 2, -1, 0 1 2 3 -1 ] } }\n",
            [[0, 1, 2], [0, 1, 2], [0, 2, 3]],
        ),
    ],
)
def test_files_of_other_programs(tmp_path, name, content, faces):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    mesh = read_mesh(path)
    np.testing.assert_array_equal(mesh.vertices, SQUARE)
    np.testing.assert_array_equal(mesh.faces, faces)


def test_obj_colours_as_bytes_become_fractions(tmp_path):
    path = tmp_path / "m.obj"
    path.write_text("v 0 0 0 255 0 51\nv 1 0 0 0 0 0\nv 0 1 0 0 0 0\nf 1 2 3\n")
    np.testing.assert_allclose(read_mesh(path).colors[0], [1, 0, 0.2])


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("m.stl", "solid", "expected one of"),
        ("m.obj", "", "no vertices"),
        ("m.obj", "v 0 0 0\nv 1 0 0\nv 0 1 0\n", "no faces"),
        ("m.obj", "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n", "indices within 0..2"),
        ("m.obj", "v 0 0 0\nf 0 0 0\n", "counts from 1"),
        ("m.obj", "v 0 0 zero\nf 1 1 1\n", "damaged OBJ"),
        ("m.obj", "v 0 0 0\nv 0 0\nf 1 1 1\n", "damaged OBJ"),
        ("m.obj", "v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "not finite"),
        ("m.ply", "plz", "Not a ply file"),
        ("m.ply", "ply\nformat ascii 1.0\nelement vertex 3\n", "damaged PLY"),
        (
            "m.ply",
            "ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\n"
            "end_header\n0 0 0\n",
            "3 vertex entries announced, 1 found",
        ),
        ("m.ply", "ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nend_header\n0\n", "damaged PLY"),
        ("m.wrl", "#VRML V1.0 ascii\n", "VRML V2.0"),
        ("m.wrl", "#VRML V2.0 utf8\nGroup {}\n", "IndexedFaceSet"),
    ],
)
def test_damaged_files_are_named(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(InputError, match=words) as caught:
        read_mesh(path)
    assert caught.value.path == str(path)


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.95])
def test_truncated_binary_ply(tmp_path, keep):
    path = tmp_path / "m.ply"
    rng = np.random.default_rng(0)
    write_ply(path, Mesh(rng.normal(size=(50, 3)), rng.integers(0, 50, (90, 3))))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(InputError):
        read_mesh(path)


@given(content=st.binary(max_size=400), start=st.sampled_from([b"", b"ply\n", b"v 1 2 3\n", b"#VRML V2.0"]))
def test_noise_never_escapes_as_another_exception(tmp_path_factory, content, start):
    folder = tmp_path_factory.mktemp("noise")
    for suffix in (".obj", ".ply", ".wrl"):
        path = folder / f"m{suffix}"
        path.write_bytes(start + content)
        try:
            read_mesh(path)
        except InputError:
            pass


def test_point_clouds_only_where_asked_for(tmp_path):
    path = tmp_path / "m.obj"
    path.write_text("v 0 0 0\nv 1 0 0\n")
    assert read_mesh(path, require_faces=False).faces.shape == (0, 3)


def test_mesh_checks_its_arrays():
    with pytest.raises(InputError, match="one colour a vertex"):
        Mesh(SQUARE, [[0, 1, 2]], np.zeros((2, 3)))
    with pytest.raises(InputError, match="landmark"):
        Mesh(SQUARE, [[0, 1, 2]], landmarks=np.array([7]))
    with pytest.raises(InputError, match="shape"):
        Mesh(np.zeros((4, 2)), [[0, 1, 2]])


@pytest.mark.parametrize(("scale", "unit"), [(0.25, "metres"), (25.0, "centimetres"), (2.5e5, "micrometres")])
def test_units_are_checked(scale, unit):
    cube = np.array(np.meshgrid([0, 1], [0, 1], [0, 1])).reshape(3, -1).T / np.sqrt(3)
    check_millimetres(Mesh(cube * 250.0, [[0, 1, 2]]), "head.obj")
    with pytest.raises(InputError, match=f"looks like {unit}"):
        check_millimetres(Mesh(cube * scale, [[0, 1, 2]]), "head.obj")
