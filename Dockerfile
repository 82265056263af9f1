# One image for the API (`nern serve`), workers (`celery -A worker.celery worker`) and migrations (`nern migrate`).
# docs/deployment.md says how it is built and run.

# Any base with apt and Python 3.11 or later.
ARG BASE=docker.io/library/debian:bookworm-slim

FROM ${BASE} AS python
# tini is process 1. As process 1, Python would ignore SIGTERM until it has a handler, that is during the first seconds.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3 ca-certificates tini \
    && apt-get clean && rm -rf /var/lib/apt/lists/*

FROM python AS dependencies
RUN apt-get update && apt-get install --yes --no-install-recommends python3-venv
# pip has an environment of its own, so that the environment of the image has none.
RUN python3 -m venv /opt/pip && python3 -m venv --without-pip /opt/nern
ENV PIP="/opt/pip/bin/pip --python /opt/nern/bin/python" \
    PIP_CONSTRAINT=/source/constraints.txt \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_NO_COMPILE=1
WORKDIR /source
COPY pyproject.toml constraints.txt ./
# The index with the wheels of torch: one of CPU wheels, or of wheels for another CUDA. Empty: pip's own index, whose wheels for
# Linux on x86-64 have CUDA.
ARG TORCH_INDEX=
# Extras of the project, separated by commas: otel, timm.
ARG EXTRAS=otel
RUN [ -z "$TORCH_INDEX" ] || $PIP install --no-deps --index-url "$TORCH_INDEX" torch torchvision
RUN python3 -c "import sys, tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
        lists = [project['dependencies'], *(project['optional-dependencies'][name] for name in sys.argv[1].split(',') if name)]; \
        print(*sum(lists, []), sep='\n')" "$EXTRAS" > requirements.txt \
    && $PIP install --requirement requirements.txt
# Headers are for compilers, and there is none.
RUN rm -r /opt/nern/lib/python3*/site-packages/torch/include
# Nobody can write .pyc files later. These are valid whatever happens to the times of the files. Tests of torch are written for
# several versions of Python.
RUN /opt/nern/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash -x torch/testing/_internal /opt/nern/lib

FROM dependencies AS code
COPY README.md ./
COPY nern nern
COPY service service
COPY worker worker
COPY migrations migrations
RUN $PIP install --no-deps --prefix /opt/code . \
    && /opt/nern/bin/python -m compileall -q --invalidation-mode unchecked-hash -s /opt/code -p /opt/nern /opt/code/lib

FROM python
RUN groupadd --gid 10001 nern \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin nern \
    && install --directory --owner 10001 --group 10001 /data
# Two layers: the second one is small, and most releases change no other.
COPY --from=dependencies /opt/nern /opt/nern
COPY --from=code /opt/code /opt/nern
# Libraries keep files in the home folder.
ENV PATH=/opt/nern/bin:$PATH \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    NERN_HOST=0.0.0.0 \
    NERN_DATA_DIR=/data
USER 10001:10001
# The root folder has no Python files, and the service can't write there.
WORKDIR /
VOLUME /data
EXPOSE 8000
ARG BASE
ARG VERSION=
ARG REVISION=
ARG SOURCE=
ARG LICENSES=
LABEL org.opencontainers.image.title="nern" \
      org.opencontainers.image.description="Turns convolutional networks into neural representations and serves their weights" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.source="$SOURCE" \
      org.opencontainers.image.licenses="$LICENSES" \
      org.opencontainers.image.base.name="$BASE"
ENTRYPOINT ["/usr/bin/tini", "--"]
CMD ["nern", "serve"]
