# syntax=docker/dockerfile:1
# In place of dl_inference's tis-model-convert: the same variables, mounts, files and tensor names (docs/docker.md).
# Where the container has a GPU it builds the engine, with the TensorRT of the Triton release that will load it;
# where it has none, the engine waits in pending/ for `convkit build`.
ARG TRITON=nvcr.io/nvidia/tritonserver:26.06-py3

FROM python:3.11-slim AS wheel
COPY pyproject.toml README.md LICENSE /src/
COPY convkit /src/convkit
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels /src

FROM ${TRITON}
# The frameworks to convert from, with the parser that finds what TensorRT would refuse, also where there is no GPU;
# and the version of TensorRT that the image above holds: empty where it holds none.
ARG EXTRAS=torch,tensorflow,tensorrt-rtx
ARG TENSORRT=11.0.0.114
COPY --from=wheel /wheels /wheels
COPY constraints.txt /wheels/
RUN --mount=type=cache,target=/var/.cache/pip \
    python3 -m venv --without-pip /opt/convkit \
    && PIP_CACHE_DIR=/var/.cache/pip python3 -m pip --python /opt/convkit/bin/python install --constraint /wheels/constraints.txt \
        "$(echo /wheels/convkit-*.whl)[${EXTRAS}]" ${TENSORRT:+"tensorrt_cu13_bindings==${TENSORRT}"}
COPY --chmod=755 docker/convert.sh /opt/convkit/bin/convert
RUN mkdir -m 1777 /cache
# As dl_inference did, run what lies beside the model: a pickle, model.py. `-e CONVKIT_TRUST=0` refuses it.
ENV CONVKIT_TRUST=1
VOLUME ["/cache"]
ENTRYPOINT ["/opt/convkit/bin/convert"]
