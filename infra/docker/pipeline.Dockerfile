# Flows, workers, Prefect server and refine service: one image, chosen by the command.
# LOCK chooses what is installed: "gpu" adds the CUDA build of the sparse convolution and what the
# released model needs. Every file but torch's is checked against its hash.
FROM python:3.11-slim@sha256:9c900dea9e8fb7e16277c179b555cc72d29a352dbc33cff48ad5a0412fd5bfc7

ARG LOCK=cpu
WORKDIR /app
COPY requirements-torch.lock ./
COPY infra/docker/requirements-${LOCK}.lock requirements.lock
RUN pip install --no-cache-dir --require-hashes --no-deps -r requirements.lock \
 && pip install --no-cache-dir -r requirements-torch.lock
COPY pyproject.toml README.md LICENSE ./
COPY segvigen_model segvigen_model
COPY tasks tasks
COPY flows flows
COPY infra infra
COPY deployments deployments
# Editable, because the wheel holds segvigen_model alone.
RUN pip install --no-cache-dir --no-deps -e . \
 && python -m infra.viewer.build \
 && useradd --create-home segvigen && mkdir -p /data && chown segvigen /data
USER segvigen
