"""The 68 points of iBUG 300-W: which is which, and where each goes in a mirrored picture."""

CONTOUR = slice(0, 17)
"""The 17 jaw points. Detectors slide them along the silhouette with the view, so crops ignore them."""

NOSE_TIP = 30
NOSE_TIP51 = NOSE_TIP - 17
"""The nose tip among the 51 points without the contour."""

OUTER_EYES = (36, 45)
"""The outer corners of the eyes."""


def _swap_table() -> tuple[int, ...]:
    pairs = [(i, 16 - i) for i in range(8)] + [(17 + i, 26 - i) for i in range(5)] + [(31, 35), (32, 34)]
    pairs += [(36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46)]
    pairs += [(48, 54), (49, 53), (50, 52), (55, 59), (56, 58), (60, 64), (61, 63), (65, 67)]
    table = list(range(68))
    for a, b in pairs:
        table[a], table[b] = b, a
    return tuple(table)


SWAP68: tuple[int, ...] = _swap_table()
"""Landmark i of a mirrored face is landmark SWAP68[i] of the original."""
