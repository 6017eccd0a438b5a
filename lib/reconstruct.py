"""Photographs to a textured 3D head.

    python -m lib.reconstruct left.jpg front.jpg right.jpg --out out/

takes one to many pictures of one person and writes mesh.glb (metres), mesh.obj + .mtl + .png, mesh.ply (mm),
parameters.json and overlay_<view>.png. Exit status: 0 done, 1 an input that cannot be used (the message says which and
why; nothing is written then).
"""

import sys
import time
from argparse import Namespace
from dataclasses import replace
from functools import partial

from lib.core.command import argument, command
from lib.morphable.model import FACE_MODEL
from lib.papers import load_method
from lib.photos.head import reconstruct, view_names, write_head
from lib.photos.settings import load_model, load_settings
from lib.photos.start import find_run, network_start


@command(
    __doc__,
    argument("photos", nargs="*", help="one to many pictures of one person, any order"),
    argument("--out", default="out", help="folder for the results (default: out)"),
    argument("--landmarks", help="JSON with 68 points for some or all pictures instead of detecting them"),
    argument("--detector", choices=["auto", "dlib", "face-alignment"], help="default: params.yaml, else auto"),
    argument("--largest", action="store_true", help="with several faces in a picture take the largest"),
    argument("--method", help="start from this trained network (a run of data/<profile>/runs)"),
    argument("--texture-size", type=int, help="side of the texture in pixels"),
    argument("--model", default=FACE_MODEL, help="face model file"),
    argument("--params", default="params.yaml"),
)
def main(options: Namespace) -> None:
    """The photo command."""
    begin = time.perf_counter()
    settings, profile = load_settings(options.params)
    given = {"detector": options.detector, "texture_size": options.texture_size}
    settings = replace(settings, **{name: value for name, value in given.items() if value is not None})
    model = load_model(options.model)
    start = partial(network_start, find_run(options.method, profile), load_method, model) if options.method else None
    head = reconstruct(
        options.photos, model, settings, landmarks=options.landmarks, largest=options.largest, start=start
    )
    for warning in head.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    for path in write_head(head, model, options.out, settings):
        print(path)
    for name, face, camera in zip(view_names(head.photos), head.detections, head.fit.cameras, strict=True):
        yaw, pitch, roll = camera.angles()
        print(f"{name}: {face.how}, yaw {yaw:.0f}, pitch {pitch:.0f}, roll {roll:.0f} degrees", file=sys.stderr)
    print(
        f"median landmark reprojection {head.reprojection_percent(offsets=True):.2f} % of the outer-eye distance "
        f"({head.reprojection_percent():.2f} % without the fitted landmark offsets); "
        f"{time.perf_counter() - begin:.1f} s in all",
        file=sys.stderr,
    )


if __name__ == "__main__":
    raise SystemExit(main())
