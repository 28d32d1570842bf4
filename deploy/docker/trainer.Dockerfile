# The trainer, a job: fine-tunes, evaluates, passes or fails the gate, publishes a model version.
#
#     docker build -f deploy/docker/trainer.Dockerfile -t qrelay-trainer .
#
# PyPI's Linux build of PyTorch brings CUDA, gigabytes of it. For an image without, give PyTorch's index of CPU builds
# (its install page names the URL): --build-arg PIP_EXTRA_INDEX_URL=URL
#
# The base is pinned by digest, the same in every recipe here. To renew it:
# docker buildx imagetools inspect python:3.11-slim-bookworm
ARG PYTHON=python:3.11-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b

FROM ${PYTHON} AS builder
ARG EXTRAS="trainer,sink-postgres"
# pip reads these by itself; empty means PyPI alone.
ARG PIP_INDEX_URL=""
ARG PIP_EXTRA_INDEX_URL=""
RUN python -m venv /opt/qrelay
ENV PATH="/opt/qrelay/bin:$PATH" PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY qrelay qrelay
COPY services services
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install -c constraints.txt ".[${EXTRAS}]"

FROM ${PYTHON}
LABEL org.opencontainers.image.title="qrelay trainer" \
      org.opencontainers.image.description="Fine-tunes retrievers and rerankers and passes them through the gate." \
      org.opencontainers.image.licenses="Apache-2.0"
# The user has a name, because libraries ask for it, and folders that named volumes take their owner from.
RUN groupadd --gid 10001 qrelay \
 && useradd --uid 10001 --gid 10001 --home-dir /tmp --no-create-home --shell /usr/sbin/nologin qrelay \
 && install -d -o 10001 -g 10001 /srv/qrelay /srv/qrelay/config /srv/qrelay/state /srv/qrelay/index \
      /srv/qrelay/models /srv/qrelay/registry
COPY --from=builder /opt/qrelay /opt/qrelay
# Libraries put caches below HOME: /tmp is the only folder besides the mounted ones that has to be writable.
ENV PATH="/opt/qrelay/bin:$PATH" HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    QRELAY_MODELS_DIR=/srv/qrelay/models
WORKDIR /srv/qrelay
USER 10001:10001
# Told by `make images`: which version, built from which commit of which repository.
ARG VERSION=""
ARG REVISION=""
ARG SOURCE=""
LABEL org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}"
ENTRYPOINT ["qrelay"]
CMD ["train", "--help"]
