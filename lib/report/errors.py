"""Per-subject error files: results/<paper>/<profile>/errors/<method>-s<seed>.csv.

One row per subject and metric, and per condition where the paper has several (a column more).
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lib.core.errors import InputError

UNSEEDED = ("mean_face", "oracle", "landmark_fit")
_NAME = re.compile(r"(?P<method>[a-z0-9_]+)-s(?P<seed>\d+)")


def load_errors(folder: str | Path, seeds: Sequence[int] | None = None) -> pd.DataFrame:
    """All error files of a folder as one long frame: method, seed, subject, condition ("" if none), metric, value (mm).

    The method and seed of the file's name count; columns of those names must agree with it. With ``seeds`` only those
    runs are read, and the bounds, which have no seed: files that an earlier set of seeds left behind do not count.

    Raises:
        InputError: no files, names or columns of another form, values that are no finite non-negative numbers, or a
            subject measured twice by one metric under one condition.
    """
    folder = Path(folder)
    files = sorted(folder.glob("*.csv"))
    if seeds is not None:
        wanted = {f"-s{seed}" for seed in seeds}
        files = [p for p in files if p.stem[p.stem.rfind("-s") :] in wanted or p.stem.rsplit("-s", 1)[0] in UNSEEDED]
    if not files:
        raise InputError(folder, "error files <method>-s<seed>.csv, found none", "run `python -m lib.evaluate` first")
    return pd.concat([_load(path) for path in files], ignore_index=True)


def _load(path: Path) -> pd.DataFrame:
    name = _NAME.fullmatch(path.stem)
    if name is None:
        raise InputError(path, "a name of the form <method>-s<seed>.csv")
    try:
        frame = pd.read_csv(path, dtype={"subject": str, "metric": str, "method": str, "condition": str})
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, ValueError) as error:
        raise InputError(path, f"a CSV table ({error})") from error
    missing = {"subject", "metric", "value"} - set(frame.columns)
    if missing:
        raise InputError(path, f"the columns subject, metric, value; lacks {', '.join(sorted(missing))}")
    method, seed = name["method"], int(name["seed"])
    for column, expected in (("method", method), ("seed", seed)):
        if column in frame.columns and not (frame[column] == expected).all():
            raise InputError(path, f"{column} {expected} in every row, as the file's name says")
    value = pd.to_numeric(frame["value"], errors="coerce").to_numpy(dtype=np.float64)
    if not np.isfinite(value).all() or (value < 0).any():
        bad = frame.index[~(np.isfinite(value) & (value >= 0))]
        raise InputError(path, f"finite errors in mm, not so in {len(bad)} rows (the first is row {bad[0] + 2})")
    condition = frame["condition"].fillna("") if "condition" in frame.columns else ""
    columns = {"method": method, "seed": seed, "subject": frame["subject"], "condition": condition}
    table = pd.DataFrame(columns | {"metric": frame["metric"], "value": value})
    if table.duplicated(["subject", "condition", "metric"]).any():
        raise InputError(path, "one value per subject, condition and metric, found some twice")
    return table


def matrix(errors: pd.DataFrame, method: str, metric: str, condition: str = "") -> pd.DataFrame:
    """Errors of one method: one row a seed, one column a subject; only subjects that every seed has. May be empty."""
    rows = (errors["method"] == method) & (errors["metric"] == metric) & (errors["condition"] == condition)
    part = errors[rows]
    wide = part.pivot(index="seed", columns="subject", values="value").sort_index(axis=0).sort_index(axis=1)
    return wide.dropna(axis=1)


def paired(errors: pd.DataFrame, better: str, worse: str, metric: str, condition: str = "") -> pd.DataFrame:
    """Error of ``worse`` minus error of ``better`` (mm): one row a seed, one column a subject that both have.

    Runs pair by seed. A method without training (one row: mean face, oracle) is set against every seed of the other.
    With no seed in common the seeds' means are compared, as one row. Empty when either was not measured.
    """
    a, b = matrix(errors, better, metric, condition), matrix(errors, worse, metric, condition)
    subjects = a.columns.intersection(b.columns)
    a, b = a[subjects], b[subjects]
    if a.empty or b.empty:
        return pd.DataFrame()
    if len(b) == 1:
        return -a.sub(b.iloc[0], axis=1)
    if len(a) == 1:
        return b.sub(a.iloc[0], axis=1)
    seeds = a.index.intersection(b.index)
    if len(seeds):
        return b.loc[seeds] - a.loc[seeds]
    return (b.mean() - a.mean()).to_frame().T
