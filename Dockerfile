# bninspect with all it needs for URLs: docker run --rm -v "$PWD:/work:ro" bninspect check models/
FROM python:3.13-slim AS build
COPY pyproject.toml README.md LICENSE /source/
COPY bninspect /source/bninspect
RUN pip wheel --no-cache-dir --wheel-dir /wheels '/source[remote]'

FROM python:3.13-slim
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir --no-index --find-links /wheels 'bninspect[remote]'
# The program needs no rights: it reads what is mounted, and writes where the caller says.
USER 65534:65534
WORKDIR /work
ENTRYPOINT ["bninspect"]
CMD ["--help"]
