# The image of controller and agent: one static program and nothing around it,
# so that it builds without any network. `make image` builds the program first.
# A host that is adopted gets the same without this file: docker clocker makes
# the image from its own executable and loads it through the engine.
FROM scratch
ARG VERSION=dev
LABEL io.clocker.version=$VERSION
ENV PATH=/
COPY bin/docker-clocker /docker-clocker
COPY LICENSE /LICENSE
ENTRYPOINT ["/docker-clocker"]
