# The image of controller and agent: one static program, the network plugin that
# a controller takes to the hosts it adopts, and nothing around them, so that it
# builds without any network. `make image` builds the programs first. A host that
# is adopted gets the same without this file: docker clocker makes the image from
# its own executable and the plugin beside it, and loads it through the engine.
FROM scratch
ARG VERSION=dev
LABEL io.clocker.version=$VERSION
ENV PATH=/
COPY bin/docker-clocker /docker-clocker
COPY bin/clocker-net /clocker-net
COPY LICENSE /LICENSE
ENTRYPOINT ["/docker-clocker"]
