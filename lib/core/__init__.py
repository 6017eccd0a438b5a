"""Files, meshes, parameters, errors, command lines: what every other part of `lib` stands on."""
