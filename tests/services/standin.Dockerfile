# The stand-in for Picsellia; standard library alone, so the base is enough.
ARG BASE
# hadolint ignore=DL3006
FROM ${BASE}
COPY picsellia_standin /opt/standin/picsellia_standin
ENV PYTHONPATH=/opt/standin
ENTRYPOINT ["tini", "--", "python3", "-m", "picsellia_standin", "--host", "0.0.0.0", "--port", "8000"]
