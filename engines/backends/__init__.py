"""What builds engines and opens them: one object a backend, in a folder of its own.

Read `backend.py` (what a backend is), `registry.py` (the one list), then a folder: `native/` is
ours from end to end, `onnxruntime/` the shortest. `options.py`, `planning.py` and `needs.py` are
what a backend says of its flags, its limits and its packages.

- Build, opening, inspect, doctor, the support table and the planner ask the registry. Outside a
  backend's folder nobody names it or imports of it; tests/engines/backends has the exceptions.
- A folder's `backend.py` and `options.py` import nothing heavy, not even numpy.
- A backend knows checkpoints, limits and manifests, never build, serve or profiles.
- `executed` says whether anything that it builds has run. Where that is NEVER, a manifest, `build
  --list` and README say so.
"""
