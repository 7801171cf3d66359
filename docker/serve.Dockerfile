# syntax=docker/dockerfile:1
# A model converted on a CPU, in a Triton image that builds its engine where it starts, and then serves it.
ARG TRITON=nvcr.io/nvidia/tritonserver:26.06-py3

FROM python:3.11-slim AS wheel
COPY pyproject.toml README.md LICENSE /src/
COPY convkit /src/convkit
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels /src

FROM python:3.11-slim AS convert
# The framework, and the parser that finds without a GPU what TensorRT would refuse.
ARG EXTRAS=torch,tensorrt-rtx
COPY --from=wheel /wheels /wheels
COPY constraints.txt /wheels/
RUN --mount=type=cache,target=/var/.cache/pip \
    PIP_CACHE_DIR=/var/.cache/pip pip install --constraint /wheels/constraints.txt "$(echo /wheels/convkit-*.whl)[${EXTRAS}]"
ARG MODEL=sample_models/digits_cnn
ARG NAME=digits_cnn
COPY ${MODEL} /source
# The cache keeps finished steps: a model that has not changed is converted in no time.
RUN --mount=type=cache,target=/cache \
    CONVKIT_CACHE_DIR=/cache \
    convkit convert /source --name "${NAME}" --to tensorrt --engine defer --trust --measure none --output /models

FROM ${TRITON}
# The version of TensorRT that the image above holds; its Python bindings are all that is missing there.
ARG TENSORRT=11.0.0.114
COPY --from=wheel /wheels /wheels
COPY constraints.txt /wheels/
# An environment of its own: the server's Python backend keeps the packages that it came with.
RUN --mount=type=cache,target=/var/.cache/pip \
    python3 -m venv --without-pip /opt/convkit \
    && PIP_CACHE_DIR=/var/.cache/pip python3 -m pip --python /opt/convkit/bin/python install --constraint /wheels/constraints.txt \
        /wheels/convkit-*.whl "tensorrt_cu13_bindings==${TENSORRT}"
COPY --from=convert /models /models
# /cache: finished engines and TensorRT's timing cache; /engines: the repository that is served. Open to any user.
RUN mkdir -m 1777 /cache /engines
ENV CONVKIT_CACHE_DIR=/cache
VOLUME ["/cache", "/engines"]
EXPOSE 8000 8001 8002
USER 1000:1000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30m --retries=3 \
    CMD ["curl", "--fail", "--silent", "http://localhost:8000/v2/health/ready"]
# NVIDIA's own entrypoint sets the driver's compatibility libraries up; it and convkit end in exec, so that the
# server is the container's process 1 and is told to stop itself.
ENTRYPOINT ["/opt/nvidia/nvidia_entrypoint.sh", "/opt/convkit/bin/convkit", "build", "/models", "--all", "--into", "/engines", \
    "--exec", "tritonserver", "--"]
CMD ["--model-repository=/engines"]
