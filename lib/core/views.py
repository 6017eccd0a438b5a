"""The three views of a triplet, in the one order used everywhere: front, left, right."""

FRONT, LEFT, RIGHT = 0, 1, 2
"""The papers' B, A and C. "Left" is a face turned towards the image's left (negative yaw)."""

VIEWS = ("front", "left", "right")

TARGET_YAW = (0.0, -45.0, 45.0)
"""Degrees of yaw that the multi-view networks want of them (Siamese, section 4.3)."""
