# One image for the API (`nern serve`), workers (`celery -A worker.celery worker`) and migrations (`nern migrate`).
# Any base with apt and Python 3.11 or later will do.
ARG BASE=docker.io/library/debian:bookworm-slim

FROM ${BASE} AS python
RUN apt-get update && apt-get install --yes --no-install-recommends python3 ca-certificates && rm -rf /var/lib/apt/lists/*

FROM python AS build
RUN apt-get update && apt-get install --yes --no-install-recommends python3-venv && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/nern
WORKDIR /source
# The dependencies alone first: they change less often than the code, and take most of the time.
COPY pyproject.toml constraints.txt README.md ./
RUN mkdir -p nern service worker migrations && touch nern/__init__.py service/__init__.py worker/__init__.py migrations/__init__.py \
    && /opt/nern/bin/pip install --no-cache-dir --constraint constraints.txt '.[otel]'
COPY nern nern
COPY service service
COPY worker worker
COPY migrations migrations
RUN /opt/nern/bin/pip install --no-cache-dir --no-deps --force-reinstall .

FROM python
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin nern && install -d -o nern /data
COPY --from=build /opt/nern /opt/nern
ENV PATH=/opt/nern/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    NERN_HOST=0.0.0.0 \
    NERN_DATA_DIR=/data
USER 10001
WORKDIR /data
VOLUME /data
EXPOSE 8000
CMD ["nern", "serve"]
