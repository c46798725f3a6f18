"""What Triton's Python backend loads: standard library and its own numpy (< 2), nothing of ours.

`nemotrt serve repo` copies this folder as the model's version folder, which the backend imports as
a package of its own; hence the relative imports here and nowhere else. The copy of `wire/` inside
it is found as `nemotrt.wire`, since the backend's search path has the version folder.
"""
