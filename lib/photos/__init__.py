"""From photographs to a textured mesh: reading, detecting, texturing, exporting, measuring against a scan."""
