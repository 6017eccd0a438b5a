"""Cameras, rasterisation, shading: see ``CONVENTIONS.md`` beside this file."""

from lib.renderers.cameras import PerspectiveCamera, WeakPerspectiveCamera
from lib.renderers.interpolate import interpolate
from lib.renderers.normals import vertex_normals
from lib.renderers.rasterize import Fragments, rasterize
from lib.renderers.render import Renderer, RenderOutput

__all__ = [
    "Fragments",
    "PerspectiveCamera",
    "RenderOutput",
    "Renderer",
    "WeakPerspectiveCamera",
    "interpolate",
    "rasterize",
    "vertex_normals",
]
