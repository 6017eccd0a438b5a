"""The MICC adapter: reads the real layout in its variants; nothing that is missing or wrong goes by in silence."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lib.core.errors import InputError
from lib.core.mesh import Mesh, write_obj
from lib.datasets.micc.read import Micc, MiccFrame, MiccLayout, landmark_yaw, open_micc
from lib.landmarks.files import write_ljson
from lib.synthesis.scene import rotations
from tests.metrics.shapes import dome, write_vrml

SCAN = dome(14)

YAWS = (-60, -44, -20, 3, 21, 47, 60)


def on_dome(count: int = 68) -> np.ndarray:
    return SCAN.vertices[:count] + 0.2


def picture(seed: int = 0) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (48, 64, 3), np.uint8)).save(stream, "JPEG")
    return stream.getvalue()


def seen_at(mean: np.ndarray, yaw: float) -> list:
    """The mean face's landmarks in px at a yaw in degrees."""
    turned = mean @ rotations(np.array([yaw]), np.zeros(1), np.zeros(1))[0].T
    return (np.stack([turned[:, 0], -turned[:, 1]], 1) * 0.3 + 32).tolist()


class Root:
    """A MICC folder under construction."""

    def __init__(self, path: Path, mean: np.ndarray) -> None:
        self.path, self.mean = path, mean

    def scan(self, number: int, mesh: Mesh | None = None, part: str = "frontal1") -> Path:
        path = self.path / f"subject_{number:02d}/Model/{part}/obj/1109{number:08d}.obj"
        write_obj(path, mesh or SCAN)
        write_ljson(self.path / f"MICC_landmarks/some/where/{path.stem}.ljson", on_dome())
        return path

    def video(self, number: int, name: str = "Indoor-Cooperative.mjpg", yaws=YAWS, marks: bool = True) -> Path:
        path = self.path / f"subject_{number:02d}/Video/{name}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"".join(picture(i) for i in range(len(yaws))))
        if marks:
            points = {f"frame_{i + 1:04d}.jpg": seen_at(self.mean, yaw) for i, yaw in enumerate(yaws)}
            path.with_name(f"{path.stem}.landmarks.json").write_text(json.dumps(points))
        return path

    def folder(self, number: int, stem: str, names: list[str]) -> Path:
        path = self.path / f"subject_{number:02d}/Video/{stem}"
        path.mkdir(parents=True)
        for i, name in enumerate(names):
            (path / name).write_bytes(picture(i))
        return path

    def subject(self, number: int) -> None:
        self.scan(number)
        self.video(number)
        self.video(number, "PTZ-Indoor.mjpeg")


@pytest.fixture
def root(tmp_path, mean) -> Root:
    made = Root(tmp_path, mean)
    for number in (1, 2, 3):
        made.subject(number)
    return made


def test_reads_the_real_layout(root, mean):
    data = Micc(root.path, mean_landmarks=mean)
    subjects = list(data)
    assert [s.id for s in subjects] == ["01", "03"] and len(data) == 2
    assert set(data.skipped) == {"02"} and "skip list" in data.skipped["02"]
    for s in subjects:
        assert np.allclose(s.scan.vertices, SCAN.vertices, atol=1e-4) and s.truth is None
        assert np.array_equal(s.landmarks51, np.arange(17, 68)) and np.allclose(s.landmarks68, on_dome())
        assert set(s.videos) == {"INC", "IND"} and all(len(v) == len(YAWS) for v in s.videos.values())
        frame = s.videos["IND"][2]
        assert frame.condition == "IND" and frame.name == "frame_0003.jpg" and frame.landmarks2d.shape == (68, 2)
        expected = np.asarray(Image.open(io.BytesIO(picture(2))))
        assert np.array_equal(frame.image(), expected) and frame.image().shape == (48, 64, 3)
        for triplet in s.triplets.values():
            assert landmark_yaw(triplet, mean) == pytest.approx([3, -44, 47], abs=0.1)  # nearest to front, left, right


@pytest.mark.parametrize(("yaws", "missing"), [((-40, 0, 10), "right"), ((0, 40), "left"), ((-70, 45, 50), "front")])
def test_no_usable_triplet_says_which_view(root, mean, yaws, missing):
    root.video(1, yaws=yaws)
    with pytest.raises(InputError, match=rf"Indoor-Cooperative.*no usable triplet: no {missing} view"):
        Micc(root.path, strict=True, mean_landmarks=mean)[1]
    data = Micc(root.path, mean_landmarks=mean)
    subjects = list(data)
    assert [s.id for s in subjects] == ["01", "03"] and set(subjects[0].videos) == {"IND"} == set(subjects[0].triplets)
    assert set(data.skipped) == {"02", "01/INC"} and missing in data.skipped["01/INC"]


def test_a_broken_frame_is_replaced_and_counted(root, mean):
    path = root.video(1, yaws=(-45, -30, 0, 2, 45))
    content = bytearray(path.read_bytes())
    third = [i for i in range(len(content)) if content[i : i + 3] == b"\xff\xd8\xff"][2]
    content[content.index(b"\xff\xc0", third) + 4] = 0  # zero bits a sample: whole by its markers, not decodable
    path.write_bytes(bytes(content))
    subject = Micc(root.path, mean_landmarks=mean)[1]
    assert [f.name for f in subject.triplets["INC"]] == ["frame_0004.jpg", "frame_0001.jpg", "frame_0005.jpg"]
    assert subject.damaged == {"INC": 1, "IND": 0} and len(subject.videos["INC"]) == 4
    with pytest.raises(InputError, match="frame_0009"):
        MiccFrame("frame_0009.jpg", "INC", path, (5, 60)).image()


@pytest.mark.parametrize(
    "names", [[f"frame_{i:04d}.jpg" for i in (2, 10, 1)], [f"frame{i}.jpg" for i in (890, 1000, 7)]]
)
def test_extracted_frames_of_either_pattern_in_numeric_order(root, names):
    (root.path / "subject_01/Video/Indoor-Cooperative.mjpg").unlink()
    folder = root.folder(1, "Indoor-Cooperative", [*names, "note.txt"])
    (folder / "landmarks.json").write_text(json.dumps({names[0]: seen_at(root.mean, 5)}))
    frames = Micc(root.path)[1].videos["INC"]
    assert [f.name for f in frames] == [names[2], *names[:2]]
    assert [f.landmarks2d is not None for f in frames] == [f.name == names[0] for f in frames]
    assert frames[0].image().shape == (48, 64, 3)


def test_frames_of_another_pattern_are_named(root):
    root.folder(1, "PTZ-Indoor", ["img5.jpg"])
    with pytest.raises(InputError, match=r"frame_%04d\.jpg.*img5\.jpg"):
        Micc(root.path, strict=True)[1]
    layout = MiccLayout(frames=("img%d.jpg",))
    assert Micc(root.path, layout=layout)[1].videos["IND"][0].name == "img5.jpg"


def test_other_scans_stand_in(root):
    path = root.scan(1)
    wrl = path.parents[1] / "vrml" / f"{path.stem}.wrl"
    write_vrml(wrl, SCAN)
    path.unlink()
    assert np.allclose(Micc(root.path)[1].scan.vertices, SCAN.vertices, atol=1e-3)
    wrl.unlink()
    root.scan(1, part="frontal2")
    assert len(Micc(root.path)[1].scan.faces) == len(SCAN.faces)


MARKS = "MICC_landmarks/some/where/110900000001.ljson"
DAMAGES: dict[str, Callable[[Root], object]] = {
    "no faces": lambda root: root.scan(1, Mesh(SCAN.vertices, np.zeros((0, 3), int))),
    "looks like metres": lambda root: root.scan(1, Mesh(SCAN.vertices / 1000, SCAN.faces)),
    "no scan": lambda root: root.scan(1).unlink(),
    "no 3D landmarks": lambda root: (root.path / MARKS).unlink(),
    "68 points, found 51": lambda root: write_ljson(root.path / MARKS, on_dome()[:51]),
    "nose tip": lambda root: write_ljson(root.path / MARKS, on_dome() + 500),
    "no usable video": lambda root: [path.unlink() for path in (root.path / "subject_01/Video").iterdir()],
}


@pytest.mark.parametrize("reason", DAMAGES)
def test_a_subject_is_left_out_with_its_reason_or_raises(root, reason):
    DAMAGES[reason](root)
    data = Micc(root.path)
    assert [s.id for s in data] == ["03"]
    assert reason in data.skipped["01"]
    with pytest.raises(InputError):
        list(Micc(root.path, strict=True))


def test_missing_numbers_count_as_left_out(root):
    root.subject(6)
    data = Micc(root.path, skip=())
    assert data.ids == [1, 2, 3, 6] and set(data.skipped) == {"04", "05"}
    assert "no folder subject_04" in data.skipped["04"]


def test_detector_fills_in_and_faces_not_found_are_counted(root, mean, fake_detector):
    for name in ("Indoor-Cooperative.mjpg", "PTZ-Indoor.mjpeg"):
        root.video(1, name, yaws=(0,) * 5, marks=False)
        (root.path / "subject_01/Video" / f"{name.split('.')[0]}.landmarks.json").unlink()
    detector = fake_detector([seen_at(mean, 0), None, seen_at(mean, -45), seen_at(mean, 45), None])
    subject = Micc(root.path, mean_landmarks=mean, detector=detector)[1]
    assert subject.no_face == {"INC": 2, "IND": 2} and detector.calls == 10
    assert [f.name for f in subject.triplets["INC"]] == ["frame_0001.jpg", "frame_0003.jpg", "frame_0004.jpg"]
    data = Micc(root.path, detector=fake_detector([None]), detect_frames=3)
    assert [s.id for s in data] == ["03"] and "no face was found in any of 3 frames" in data.skipped["01"]
    with pytest.raises(InputError, match="none of 5 frames has landmarks"):
        Micc(root.path, strict=True, mean_landmarks=mean)[1]


@pytest.mark.parametrize("content", ["{", "[1]", '{"frame_0001.jpg": [[1, 2]]}', '{"frame_0001.jpg": "x"}'])
def test_damaged_landmark_files_are_named(root, content):
    path = root.path / "subject_01/Video/Indoor-Cooperative.landmarks.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"Indoor-Cooperative\.landmarks\.json"):
        Micc(root.path, strict=True)[1]


def test_options_of_the_parameters(root, mean):
    folder = root.folder(3, "PTZ-Indoor", ["img1.jpg"])
    (folder / "landmarks.json").write_text(json.dumps({"img1.jpg": seen_at(mean, 5)}))
    values = {"root": str(root.path), "skip": [1], "frame_pattern": "img%d.jpg"}
    data = open_micc({"profile": "quick", "data": {"micc": values}, "photos": {"detector": "dlib"}})
    assert data.ids == [2, 3] and data[3].videos["IND"][0].name == "img1.jpg"
    with pytest.raises(InputError, match="quick/micc"):
        open_micc({"profile": "quick-none", "data": {"micc": {"root": "tests/none/quick/micc"}}})


def test_no_folder_and_no_subjects(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        Micc(tmp_path / "none")
    with pytest.raises(InputError, match="subject_01"):
        Micc(tmp_path)
