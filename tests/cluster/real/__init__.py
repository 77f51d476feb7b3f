"""A real control plane, to hold the tests' own one against: `build.py` makes it, `control_plane.py` starts it."""
