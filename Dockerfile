# The service, and the command line: docker build -t natalog . && docker run natalog --help
FROM python:3.13-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY core core
COPY actors actors
COPY src src
RUN python -m venv /opt/natalog && /opt/natalog/bin/pip install --no-cache-dir .

FROM python:3.13-slim-bookworm
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/natalog natalog
COPY --from=build /opt/natalog /opt/natalog
# every setting of config/natalog.toml has a variable; those that matter in a container
ENV PATH=/opt/natalog/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    NATALOG_DATA=/var/lib/natalog/data \
    NATALOG_METRICS_HOST=0.0.0.0 \
    NATALOG_METRICS_PORT=9464
USER 10001
WORKDIR /var/lib/natalog
EXPOSE 9464
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:9464/healthz/ready', timeout=3)"]
ENTRYPOINT ["natalog"]
CMD ["serve"]
