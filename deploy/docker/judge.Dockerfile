# The judge: one graded, calibrated judgment a passage.
#
#     docker build -f deploy/docker/judge.Dockerfile -t qrelay-judge .
#
# PyPI's Linux build of PyTorch brings CUDA, gigabytes of it. For an image without, give PyTorch's index of CPU builds
# (its install page names the URL): --build-arg PIP_EXTRA_INDEX_URL=URL
#
# With vLLM, which needs other versions of some packages, and at run time a C compiler:
#
#     docker build -f deploy/docker/judge.Dockerfile -t qrelay-judge-vllm --target vllm \
#       --build-arg EXTRAS=judge,judge-postgres,judge-vllm --build-arg CONSTRAINTS=constraints-vllm.txt .
#
# The base is pinned by digest, the same in every recipe here. To renew it:
# docker buildx imagetools inspect python:3.11-slim-bookworm
ARG PYTHON=python:3.11-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b

FROM ${PYTHON} AS builder
ARG EXTRAS="judge,judge-postgres"
ARG CONSTRAINTS="constraints.txt"
# pip reads these by itself; empty means PyPI alone.
ARG PIP_INDEX_URL=""
ARG PIP_EXTRA_INDEX_URL=""
RUN python -m venv /opt/qrelay
ENV PATH="/opt/qrelay/bin:$PATH" PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY pyproject.toml constraints.txt deploy/docker/constraints-vllm.txt README.md LICENSE ./
COPY qrelay qrelay
COPY services services
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install -c ${CONSTRAINTS} ".[${EXTRAS}]"

FROM ${PYTHON} AS service
LABEL org.opencontainers.image.title="qrelay judge" \
      org.opencontainers.image.description="Judges passages: graded relevance with probabilities." \
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
# gRPC and metrics, as the configurations in deploy/ bind them.
EXPOSE 7403 7413
# Told by `make images`: which version, built from which commit of which repository.
ARG VERSION=""
ARG REVISION=""
ARG SOURCE=""
LABEL org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}"
ENTRYPOINT ["qrelay"]
CMD ["serve", "judge"]

# Triton, below vLLM, compiles small C files when the service starts.
FROM service AS vllm
USER 0
# Debian keeps only a package's newest version: a recipe that pins one stops building.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/*
USER 10001:10001

# What is built where no target is named.
FROM service
