# The image of `ddiseg serve` and of every other command, without CUDA: compose.yaml uses it.
#   docker build --tag ddiseg:0.2.0 .
FROM python:3.11.13-slim-bookworm

# CPU builds of torch (0.8 GB less); --build-arg TORCH_INDEX= takes the default ones, with CUDA.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=server,postgres,s3

ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

# What changes seldom comes first: torch is most of the image.
WORKDIR /src
COPY constraints.txt ./
RUN pip install --constraint constraints.txt ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} torch

COPY setup.cfg setup.py pyproject.toml MANIFEST.in README.md LICENSE ./
COPY annotation_protocol ./annotation_protocol
COPY db ./db
COPY ddiseg ./ddiseg
COPY fedd ./fedd
RUN pip install --constraint constraints.txt ".[$EXTRAS]" \
 && ddiseg --version \
 && rm -rf /src/*

# A user without rights; the workspace is a volume, which takes the owner of this folder.
RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin ddiseg \
 && install --directory --owner ddiseg --group ddiseg --mode 0700 /workspace
USER 10001:10001
WORKDIR /workspace
VOLUME /workspace
EXPOSE 9090
ENTRYPOINT ["ddiseg"]
CMD ["serve", "--host", "0.0.0.0"]
