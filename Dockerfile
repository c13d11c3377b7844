# syntax=docker/dockerfile:1
FROM python:3.13-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /build
RUN python -m venv /opt/stepgate
COPY requirements.lock ./
RUN /opt/stepgate/bin/pip install --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
COPY plans ./plans
COPY workspace ./workspace
RUN /opt/stepgate/bin/pip install --no-deps .

FROM python:3.13-slim
LABEL org.opencontainers.image.title="Stepgate" \
      org.opencontainers.image.description="A PostgreSQL-backed deterministic step engine with approval gates" \
      org.opencontainers.image.licenses="MIT"
RUN useradd --system --uid 10001 --create-home --home-dir /home/stepgate stepgate \
    && install -d -o stepgate -g stepgate -m 0700 /var/lib/stepgate \
    && install -d -o stepgate -g stepgate /workspaces
COPY --from=build /opt/stepgate /opt/stepgate
ENV PATH=/opt/stepgate/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    STEPGATE_HOST=0.0.0.0 \
    STEPGATE_STATE_DIR=/var/lib/stepgate \
    STEPGATE_WORKSPACE_ROOT=/workspaces
USER stepgate
# Layers may not lie on the container's own overlay file system, so the state folder is a volume.
VOLUME ["/var/lib/stepgate", "/workspaces"]
WORKDIR /workspaces
EXPOSE 8002
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8002/health', timeout=4)"]
ENTRYPOINT ["stepgate"]
CMD ["serve"]
