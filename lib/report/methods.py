"""The rows of the Siamese paper's table 1, the second bound, and the controls that a reviewer asks for."""

from dataclasses import dataclass

REPORTED_TABLE = "siamese_table1_3dfaw"
CLAIM_METRICS = ("true_p2p", "armse")  # every claim is judged on both
BOUNDS, TABLE, CONTROLS = "bounds", "table 1", "controls"


@dataclass(frozen=True)
class Method:
    """A row: key in file names, label, section of the table, the paper's name for it if it has one, and a note."""

    key: str
    label: str
    section: str
    paper: str | None = None
    note: str = ""


METHODS: tuple[Method, ...] = (
    Method("mean_face", "mean face (3DMM Mean)", BOUNDS, "3DMM Mean", "always the mean of the 3DMM"),
    Method("oracle", "oracle", BOUNDS, None, "the truth projected onto the 3DMM's 64 modes: the floor"),
    Method("sv_frontal", "SV Frontal", TABLE, "SV Frontal", "most frontal frame"),
    Method("sv_mean", "SV Mean", TABLE, "SV Mean", "single-view predictions averaged over all frames"),
    Method("mv_add", "MV Add", TABLE, "MV Add", "front, left, right; merged by addition"),
    Method("mv_concat", "MV Concat", TABLE, "MV Concat", "front, left, right; merged by concatenation"),
    Method("mv_shape_concat", "MV Shape-Concat", TABLE, "MV Shape-Concat", "no pose regressor, shape loss"),
    Method("mv_shape_concat_mean", "MV Shape-Concat Mean", TABLE, "MV Shape-Concat Mean", "mean of five predictions"),
    Method("sv_side", "SV Side", CONTROLS, None, "one side view alone: how much of the gain is having a profile"),
    Method("sv_avg3", "SV average of 3", CONTROLS, None, "late fusion of the three views that MV sees"),
    Method(
        "mv_front3",
        "MV Concat, front x 3",
        CONTROLS,
        None,
        "the front fed three times: whether the network uses the sides",
    ),
)
BY_KEY = {method.key: method for method in METHODS}
LEARNED = tuple(method.key for method in METHODS if method.section == TABLE)
MULTI_VIEW = tuple(key for key in LEARNED if key.startswith("mv_"))
SINGLE_VIEW = tuple(key for key in LEARNED if key.startswith("sv_"))
JOINT_MULTI_VIEW = ("mv_add", "mv_concat")  # shape and pose together: the two whose merge the paper compares


def label(key: str) -> str:
    """How a method is called in tables and figures."""
    return BY_KEY[key].label if key in BY_KEY else key
