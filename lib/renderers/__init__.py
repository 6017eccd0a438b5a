"""Cameras, rasterisation, shading: see ``CONVENTIONS.md`` beside this file.

Functions are imported from their own module (``from lib.renderers.rasterize import rasterize``): a package attribute of
the same name would hide the module.
"""

from lib.renderers.cameras import PerspectiveCamera, WeakPerspectiveCamera
from lib.renderers.render import Renderer, RenderOutput

__all__ = ["PerspectiveCamera", "RenderOutput", "Renderer", "WeakPerspectiveCamera"]
