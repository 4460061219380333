# Flows, workers, Prefect server and refine service: one image, chosen by the command.
# EXTRAS chooses what is installed; with "gpu" it includes the CUDA build of the sparse convolution.
FROM python:3.11-slim@sha256:9c900dea9e8fb7e16277c179b555cc72d29a352dbc33cff48ad5a0412fd5bfc7

ARG EXTRAS="pipeline,review,postgres,local"
WORKDIR /app
COPY pyproject.toml requirements.lock README.md LICENSE ./
COPY segvigen_model segvigen_model
COPY tasks tasks
COPY flows flows
COPY infra infra
COPY deployments deployments
# Editable, because the wheel holds segvigen_model alone. The lock only constrains versions: packages
# of extras that are not installed stay out.
RUN pip install --no-cache-dir --constraint requirements.lock -e ".[${EXTRAS}]" \
 && python -m infra.viewer.build \
 && useradd --create-home segvigen && mkdir -p /data && chown segvigen /data
USER segvigen
