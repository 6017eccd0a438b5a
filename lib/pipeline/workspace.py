"""Profiles: which parameters a run has, and where it writes.

`quick` and `paper` make results: they turn params.yaml, in place, into lib/profiles/<profile>.yaml. `smoke` only proves
that the pipeline runs: it works in out/smoke/, a folder of its own with its own params.yaml, dvc.lock, data/ and results/
but the same code and the same cache of DVC, so that nothing that git tracks changes. Either way, edits made by hand in
params.yaml (the roots of licensed data sets, say) are carried over into the new parameters.
"""

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from lib.core.errors import InputError, unknown
from lib.core.files import atomic_write_text
from lib.core.params import PROFILE_FOLDER, load_params

SCRATCH = ("smoke",)
"""Profiles whose numbers mean nothing, and that therefore must not touch results/."""
LINKED = ("lib", "notebooks")
"""Folders that a scratch profile shares with the repository."""
PARAMS = Path("params.yaml")
Edit = tuple[tuple[str, ...], Any]


def enter(profile: str) -> Path:
    """Make the profile ("" for the active one) ready; returns the folder to run in. Says what it carries over.

    Raises:
        InputError: no such profile.
    """
    current = load_params(PARAMS)
    profile = profile or str(current["profile"])
    if profile in SCRATCH:
        return _scratch(profile, current)
    if profile != current["profile"]:
        text, carried = merged(profile, current)
        atomic_write_text(PARAMS, text)
        _say(f"params.yaml: now the {profile} profile", carried)
    return Path()


def _say(headline: str, carried: list[Edit]) -> None:
    print(headline, flush=True)
    for place, value in carried:
        print(f"  carried over from your params.yaml: {'.'.join(place)}: {value}", flush=True)


def merged(profile: str, current: dict[str, Any], *, elsewhere: bool = False) -> tuple[str, list[Edit]]:
    """The text of a profile with the hand edits of params.yaml, and those edits.

    Args:
        current: the content of params.yaml.
        elsewhere: the text is for another folder: relative paths become absolute.
    """
    text = template(profile)
    old = PROFILE_FOLDER / f"{current['profile']}.yaml"
    tree = load_params(PROFILE_FOLDER / f"{profile}.yaml")
    carried = (
        [edit for edit in edits(current, load_params(old)) if _at(tree, edit[0]) != edit[1]] if old.is_file() else []
    )
    return _edited(text, carried, elsewhere), carried


def _edited(text: str, changes: list[Edit], elsewhere: bool = False) -> str:
    """The text of a parameter file with other values in some places; comments stay."""
    from ruamel.yaml import YAML

    if not changes:
        return text
    yaml = YAML()  # keeps the template's comments
    yaml.width, yaml.preserve_quotes = 120, True
    yaml.representer.add_representer(type(None), lambda r, _: r.represent_scalar("tag:yaml.org,2002:null", "null"))
    document = yaml.load(text)
    for place, value in changes:
        node = document
        for part in place[:-1]:
            if not isinstance(node.get(part), dict):
                node[part] = {}
            node = node[part]
        path = elsewhere and isinstance(value, str) and Path(value).exists()
        node[place[-1]] = str(Path(value).resolve()) if path else value
    stream = io.StringIO()
    yaml.dump(document, stream)
    return stream.getvalue()


def template(profile: str) -> str:
    """The text of lib/profiles/<profile>.yaml; of a profile that is like another, the other's with its own values.

    Raises:
        InputError: no such profile.
    """
    source = PROFILE_FOLDER / f"{profile}.yaml"
    if not source.is_file():
        raise unknown("no such profile", profile, sorted(path.stem for path in PROFILE_FOLDER.glob("*.yaml")))
    text = source.read_text(encoding="utf-8")
    base = yaml.safe_load(text).get("like")
    if base is None:
        return text
    changes = edits(load_params(source), load_params(PROFILE_FOLDER / f"{base}.yaml"))
    return _edited(template(base), [(("profile",), profile), *changes])


def edits(tree: dict[str, Any], original: dict[str, Any], place: tuple[str, ...] = ()) -> Iterator[Edit]:
    """Where a parameter tree differs from the original: each place, and the value there. Lists count as one value."""
    for key, value in tree.items():
        there = (*place, key)
        if isinstance(value, dict) and isinstance(original.get(key), dict):
            yield from edits(value, original[key], there)
        elif there != ("profile",) and (key not in original or original[key] != value):
            yield there, value


def _at(tree: Any, place: tuple[str, ...]) -> Any:
    for part in place:
        tree = tree.get(part, _at) if isinstance(tree, dict) else _at  # _at: a value that no tree holds
    return tree


def _scratch(profile: str, current: dict[str, Any]) -> Path:
    """out/<profile>/ with everything that a run needs; parameters and dvc.yaml are written anew."""
    from dvc.config import Config

    folder = Path("out") / profile
    text, carried = merged(profile, current, elsewhere=True)
    (folder / ".dvc").mkdir(parents=True, exist_ok=True)
    for name in LINKED:
        link = folder / name
        if not link.exists():
            link.unlink(missing_ok=True)
            link.symlink_to(Path("../..") / name)
    for name in ("dvc.yaml", ".dvcignore", *_given()):
        if Path(name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(name, folder / name)
    cache = Path(Config(".dvc", ".dvc")["cache"].get("dir") or ".dvc/cache").resolve()
    shutil.copyfile(".dvc/config", folder / ".dvc/config")
    atomic_write_text(folder / ".dvc/config.local", f"[core]\n    no_scm = true\n[cache]\n    dir = {cache}\n")
    atomic_write_text(folder / PARAMS, text)
    _say(f"{profile} profile: runs in {folder}/; results/ and params.yaml stay as they are", carried)
    return folder


def _given() -> list[str]:
    """Files outside the linked folders that stages of dvc.yaml read and none makes; paths of a profile are never such."""
    stages = (load_params("dvc.yaml").get("stages") or {}).values()
    made = {
        path for stage in stages for out in stage.get("outs", ()) for path in ([out] if isinstance(out, str) else out)
    }
    read = {path for stage in stages for path in stage.get("deps", ())}
    return sorted(path for path in read - made if "${" not in path and path.split("/")[0] not in LINKED)


def prepare_dvc() -> None:
    """Let DVC work in a copy without git (a downloaded archive) as well.

    Raises:
        InputError: this is not the top folder of the repository.
    """
    if not Path(".dvc").is_dir() or not Path("dvc.yaml").is_file():
        raise InputError("dvc.yaml", "no pipeline here", "run from the top folder of the repository")
    if not Path(".git").exists() and not Path(".dvc/config.local").exists():
        atomic_write_text(".dvc/config.local", "[core]\n    no_scm = true\n")
