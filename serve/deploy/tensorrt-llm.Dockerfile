# NVIDIA's Triton image for TensorRT-LLM, with nemotrt beside it in an environment of its own.
#   docker build -f serve/deploy/tensorrt-llm.Dockerfile -t nemotrt:tensorrt-llm .
# The image's packages (numpy < 2, TensorRT 10.14) and ours never meet: /opt/nemotrt has its own.

FROM nvcr.io/nvidia/tritonserver:25.12-trtllm-python-py3 AS build
ARG PIP_NO_INDEX
ARG PIP_FIND_LINKS
# NVIDIA's images hold pip to their own versions by this variable, and add a path to every Python.
ENV PIP_CONSTRAINT="" PYTHONPATH=""
WORKDIR /src
COPY . .
# The image's own pip fills both environments: its Python may come without ensurepip.
RUN python3 -m venv --without-pip /opt/build \
    && python3 -m venv --without-pip /opt/nemotrt \
    && python3 -m pip --python /opt/build install --no-cache-dir --require-hashes \
        -r serve/deploy/lock/build.txt \
    && /opt/build/bin/python -m hatchling build -t wheel -d /opt/dist \
    && python3 -m pip --python /opt/nemotrt install --no-cache-dir --require-hashes \
        -r serve/deploy/lock/serve.txt -r serve/deploy/lock/rtx-run.txt \
    && python3 -m pip --python /opt/nemotrt install --no-deps /opt/dist/*.whl

FROM nvcr.io/nvidia/tritonserver:25.12-trtllm-python-py3
COPY --from=build /opt/nemotrt /opt/nemotrt
# The command alone goes on PATH: Triton's stub takes its packages from the first python3 there.
RUN ln -s /opt/nemotrt/bin/nemotrt /usr/local/bin/nemotrt \
    && install -d -o 1000 -g 1000 -m 0700 /run/nemotrt
ENV HOME=/tmp NEMOTRT_RUN_DIR=/run/nemotrt NEMOTRT_PYTHON=/opt/nemotrt/bin/python
USER 1000:1000
EXPOSE 9000
HEALTHCHECK --interval=10s --timeout=6s --start-period=30m --retries=3 \
    CMD ["python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9000/health/ready', timeout=5)"]
CMD ["nemotrt", "serve", "/engine", "--name", "llm", "--host", "0.0.0.0", "--port", "9000", "--drain-s", "60", "--logs"]
