# The judge, its dependencies and one benchmark's snapshot: docs/container.md tells how to build and run it.
#   make image                                              builds it, with the labels
#   docker run --rm -v "$PWD:/work" validator submission.py judges a file

# Any base with Python 3.11 or newer and pip will do. If it brings the torch that pyproject.toml pins, that
# torch is used; else the pinned one is installed beside it.
ARG BASE_IMAGE=pytorch/pytorch:2.13.0-cuda13.0-cudnn9-runtime

FROM ${BASE_IMAGE} AS base
# The sandbox gets this environment's Python, so every user can read what is below; the project's secrets
# (the corpus) are closed further down.
ENV PATH=/opt/trainjudge/venv/bin:$PATH \
    TRAINJUDGE_HOME=/opt/trainjudge


FROM base AS packages
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /opt/trainjudge/project
# An environment of our own: a Python that belongs to its distribution is left as it is.
RUN python3 -m venv --without-pip --system-site-packages /opt/trainjudge/venv
# The layer of the dependencies is made anew when pyproject.toml or constraints.txt change, and not when the
# code does: the project itself is installed as links to folders that are filled later.
COPY pyproject.toml constraints.txt ./
# Further sets of packages: `board` for an image that serves a leaderboard.
ARG EXTRAS=
# Both secrets may be absent: `pip` is a pip configuration file, `ca` a bundle of certificate authorities.
RUN --mount=type=secret,id=pip --mount=type=secret,id=ca \
    if [ -s /run/secrets/pip ]; then export PIP_CONFIG_FILE=/run/secrets/pip; fi; \
    if [ -s /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi; \
    touch README.md && mkdir -p env harness \
    && python3 -m pip --python /opt/trainjudge/venv/bin/python install -c constraints.txt -e ".${EXTRAS:+[$EXTRAS]}" \
    && rm -rf *.egg-info


FROM packages AS project
COPY . .
RUN python -m compileall -q env harness
# The benchmark. A token for gated models is the secret `hf_token`; downloads stay outside the layers.
ARG HPARAMS=hparams.json
RUN --mount=type=secret,id=hf_token --mount=type=secret,id=ca \
    --mount=type=cache,target=/root/.cache/huggingface \
    if [ -s /run/secrets/hf_token ]; then export HF_TOKEN="$(cat /run/secrets/hf_token)"; fi; \
    if [ -s /run/secrets/ca ]; then export SSL_CERT_FILE=/run/secrets/ca REQUESTS_CA_BUNDLE=/run/secrets/ca; fi; \
    validator preload --hparams "$HPARAMS"
# What the labels will say, where it was given, has to be true.
ARG HPARAMS_SHA256= MODEL_SHA256= DATA_SHA256= TORCH_VERSION= TRANSFORMERS_VERSION= TRAINJUDGE_VERSION=
RUN python -m harness.image seal --hparams "$HPARAMS"


FROM base
COPY --from=packages /opt/trainjudge/venv /opt/trainjudge/venv
COPY --from=project /opt/trainjudge/project /opt/trainjudge/project
COPY --from=project /opt/trainjudge/snapshots /opt/trainjudge/snapshots
# A judge on the host mounts its folders where they are outside, often below /root, which is closed in many
# bases: the sandbox's user has to pass through (docs/sandbox.md, level docker).
RUN chmod 711 /root
# The sandbox's users are in a group of their own, to which the project is closed (SHUT_OUT_GROUP of
# harness/sandbox/environment.py): for all others, such as `--user 1000`, `validator check` works.
RUN chgrp 61100 /opt/trainjudge/project && chmod 705 /opt/trainjudge/project
ARG HPARAMS=hparams.json
ENV TRAINJUDGE_HPARAMS=/opt/trainjudge/project/${HPARAMS} \
    TRAINJUDGE_CONTAINER=1 \
    HF_HUB_OFFLINE=1 \
    TRANSFORMERS_OFFLINE=1 \
    PYTHONDONTWRITEBYTECODE=1
WORKDIR /work
# Root, for one thing only: the judge starts the train file as another user (docs/container.md).
ENTRYPOINT ["/opt/trainjudge/venv/bin/python", "-m", "harness.image.entry"]
ARG HPARAMS_SHA256= MODEL_SHA256= DATA_SHA256= TORCH_VERSION= TRANSFORMERS_VERSION= TRAINJUDGE_VERSION=
LABEL org.opencontainers.image.title="trainjudge validator" \
      org.opencontainers.image.description="Judges train files: did it really do the training, and how fast?" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${TRAINJUDGE_VERSION}" \
      org.trainjudge.hparams.sha256="${HPARAMS_SHA256}" \
      org.trainjudge.model.sha256="${MODEL_SHA256}" \
      org.trainjudge.data.sha256="${DATA_SHA256}" \
      org.trainjudge.torch="${TORCH_VERSION}" \
      org.trainjudge.transformers="${TRANSFORMERS_VERSION}" \
      org.trainjudge.python="/opt/trainjudge/venv/bin/python"
