"""Errors of a reconstruction against a scan or a known truth; every published protocol is a list of named steps.

from lib.metrics import SubjectScan, evaluate_detailed
scan = SubjectScan(vertices, faces, landmarks)          # once per subject: the search trees are kept
evaluate_detailed(prediction, faces, marks, scan, truth, face_index)["armse"].value   # in mm
"""

from lib.metrics.outer import outer_faces
from lib.metrics.protocols import PROTOCOLS, Outcome, Protocol, Step, evaluate_detailed
from lib.metrics.scan import SubjectScan, nearest_landmarks

__all__ = [
    "PROTOCOLS",
    "Outcome",
    "Protocol",
    "Step",
    "SubjectScan",
    "evaluate_detailed",
    "nearest_landmarks",
    "outer_faces",
]
