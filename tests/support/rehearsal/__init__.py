"""A GPU host without a GPU: real commands as processes, in namespaces that show what a host shows.

Read `image` (what pip installs), `driver` (what NVIDIA's driver brings), `namespace` (what a
machine or a container sees, made by bubblewrap), `machine` (one that runs, and its shells), `guide`
(the commands of docs/guides/gpu-host.md) and `walk` (how they are run). In the namespaces run
`agent`, which starts commands; `device` and `plans`, which stand for CUDA and TensorRT;
`containers`, which stands for Docker; and the programs of `programs/`, each of which stands for the
one of its name.
"""
