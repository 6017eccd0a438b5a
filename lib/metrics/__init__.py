"""Errors of a reconstruction against a scan or a known truth; every published protocol is a list of named steps.

from lib.metrics import SubjectScan, evaluate_subject
scan = SubjectScan(vertices, faces, landmarks)          # once per subject: the search trees are kept
evaluate_subject(prediction, faces, marks, scan, truth, face_index)   # {"true_p2p": 1.23, "armse": ...}, in mm
"""

from lib.metrics.outer import outer_faces
from lib.metrics.protocols import PROTOCOLS, Outcome, Protocol, Step, evaluate_detailed, evaluate_subject
from lib.metrics.scan import SubjectScan, nearest_landmarks

__all__ = [
    "PROTOCOLS",
    "Outcome",
    "Protocol",
    "Step",
    "SubjectScan",
    "evaluate_detailed",
    "evaluate_subject",
    "nearest_landmarks",
    "outer_faces",
]
