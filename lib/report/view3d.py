"""Meshes that turn with the mouse, small enough for a notebook: plotly from its CDN, never embedded."""

import html
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lib.core.errors import InputError

ERROR_COLORS = "viridis"
CLAY = "#c9b8ad"
_CAMERA = {"eye": {"x": 0.0, "y": 0.0, "z": 1.9}, "up": {"x": 0, "y": 1, "z": 0}}  # head frame: y up, z to the viewer


def _traces(
    vertices: ArrayLike,
    faces: ArrayLike,
    values: ArrayLike | None,
    colors: ArrayLike | None,
    vmax: float | None,
    bar: bool,
) -> list[Any]:
    """The mesh; with values, the triangles that lack one become a second, clay-coloured mesh."""
    import plotly.graph_objects as go

    v = np.asarray(vertices, dtype=np.float32)
    f = np.asarray(faces)
    if v.ndim != 2 or v.shape[1] != 3 or f.ndim != 2 or f.shape[1] != 3 or (len(f) and f.max() >= len(v)):
        raise InputError("3D view", f"vertices (N,3) and faces (F,3) that fit, found {v.shape} and {f.shape}")
    light = {"ambient": 0.55, "diffuse": 0.6, "specular": 0.1, "roughness": 0.8}

    def mesh(triangles: np.ndarray, **options: Any) -> Any:
        used, corner = np.unique(triangles, return_inverse=True)  # vertices that no triangle uses cost space
        corner = corner.reshape(-1, 3).astype(np.uint16 if len(used) < 2**16 else np.uint32)
        for name in ("intensity", "vertexcolor"):
            if name in options:
                options[name] = options[name][used]
        place = {"x": 0, "y": 200, "z": 1000}
        axes = dict(zip("xyzijk", (*np.round(v[used], 2).T, *corner.T), strict=True))
        return go.Mesh3d(**axes, **options, lighting=light, lightposition=place)

    if values is not None:
        intensity = np.asarray(values, dtype=np.float32)
        grey = ~np.isfinite(intensity)
        top = float(vmax if vmax is not None else np.nanmax(intensity, initial=1e-6))
        missing = grey[f].any(axis=1)
        coloured = mesh(
            f[~missing],
            intensity=np.where(grey, 0, np.round(intensity, 3)).astype(np.float32),
            colorscale=ERROR_COLORS,
            cmin=0,
            cmax=top,
            showscale=bar,
            colorbar={"title": {"text": "mm"}, "len": 0.7},
        )
        return [coloured, mesh(f[missing], color=CLAY)] if missing.any() else [coloured]
    if colors is not None:
        levels = np.clip(np.rint(255 * np.asarray(colors)), 0, 255).astype(int)
        return [mesh(f, vertexcolor=np.array([f"#{r:02x}{g:02x}{b:02x}" for r, g, b in levels]))]
    return [mesh(f, color=CLAY)]


def mesh_figure(
    vertices: ArrayLike | Mapping[str, ArrayLike],
    faces: ArrayLike,
    *,
    values: ArrayLike | Mapping[str, ArrayLike] | None = None,
    colors: ArrayLike | Mapping[str, ArrayLike] | None = None,
    vmax: float | None = None,
    title: str = "",
    height: int = 420,
) -> Any:
    """A plotly figure of one mesh, or of several of one topology side by side.

    Args:
        vertices: (N,3) mm in the head frame, or {name: (N,3)} for a row of meshes.
        faces: (F,3).
        values: (N,) numbers to colour by (mm), or {name: (N,)}; where they are NaN the surface is clay.
        colors: (N,3) RGB in [0, 1], or {name: (N,3)}; without either the mesh is plain clay.
        vmax: value of the brightest colour; the largest value when None.

    Show it in a notebook with :func:`show`.

    Raises:
        InputError: shapes that do not fit.
    """
    from plotly.subplots import make_subplots

    panels = dict(vertices) if isinstance(vertices, Mapping) else {"": vertices}
    names = list(panels)

    def of(given: Any, name: str) -> Any:
        return given.get(name) if isinstance(given, Mapping) else given

    if vmax is None and values is not None:
        vmax = float(
            max(np.nanmax(np.asarray(of(values, n)), initial=1e-6) for n in names if of(values, n) is not None)
        )
    specs = [[{"type": "scene"}] * len(names)]
    figure = make_subplots(1, len(names), specs=specs, subplot_titles=names if names != [""] else None)
    for column, name in enumerate(names, start=1):
        last = column == len(names)
        for trace in _traces(panels[name], faces, of(values, name), of(colors, name), vmax, last):
            figure.add_trace(trace, row=1, col=column)
    axis = {"visible": False}
    figure.update_scenes(xaxis=axis, yaxis=axis, zaxis=axis, aspectmode="data", camera=_CAMERA)
    figure.update_layout(
        title=title, height=height, margin={"l": 0, "r": 0, "t": 40 if title or names != [""] else 5, "b": 0}
    )
    return figure


def figure_html(figure: Any, name: str = "view") -> str:
    """The figure as a frame of HTML that loads plotly from its CDN; the same text every time (no random ids)."""
    page = figure.to_html(include_plotlyjs="cdn", full_html=True, div_id=name)
    height = int(figure.layout.height or 420) + 10
    # a frame of its own: there scripts load in order, whatever the notebook viewer does with scripts
    return (
        f'<div><iframe srcdoc="{html.escape(page)}" style="width:100%;height:{height}px;border:0" '
        f'title="{html.escape(name)}"></iframe></div>'
    )


def show(figure: Any, name: str = "view") -> None:
    """Display the figure in a notebook. Put a static picture beside it: code hosts do not run scripts."""
    from IPython.display import HTML, display

    display(HTML(figure_html(figure, name)))
