# Splits jobs, leases batches, starts workers as pods.
#   docker build -f deploy/docker/scheduler.Dockerfile -t cortex-batch/scheduler:0.1.0 .
ARG PYTHON=python:3.13-slim

FROM ${PYTHON} AS build
WORKDIR /source
COPY requirements requirements
RUN pip install --no-cache-dir --require-hashes -r requirements/uv.txt
COPY pyproject.toml README.md LICENSE ./
COPY cortex cortex
COPY services services
# What is installed is what was tested: versions and hashes come from the lock file.
RUN uv build --quiet --wheel --build-constraint requirements/dev.txt --out-dir /wheels . \
 && uv venv --quiet /app \
 && VIRTUAL_ENV=/app uv pip install --quiet --no-cache --compile-bytecode --constraint requirements/dev.txt \
      "cortex-batch[scheduler,kubernetes,postgres] @ file://$(ls /wheels/*.whl)"

FROM ${PYTHON}
ARG VERSION=0.1.0
ARG REVISION=""
LABEL org.opencontainers.image.title="cortex-batch scheduler" \
      org.opencontainers.image.description="Splits jobs, leases batches, starts workers as pods" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /app /app
ENV PATH=/app/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# Nobody, on a root that may be read-only: /tmp (and /data, where there is one) are mounted.
USER 65532:65532
WORKDIR /tmp
EXPOSE 8889 9090
ENTRYPOINT ["python", "-P", "-m", "services.scheduler"]
