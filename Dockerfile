# syntax=docker/dockerfile:1
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# The binary leaves the cache mount in the same step: a mount is not part of the image.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --locked --release --package firebreak-controller \
    && cp target/release/firebreak-controller /firebreak-controller

# glibc and CA certificates, no shell. Its Debian must be that of the build stage, or newer.
FROM gcr.io/distroless/cc-debian12
COPY --from=build /firebreak-controller /usr/local/bin/firebreak-controller
# By number, so that the kubelet can check runAsNonRoot.
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/firebreak-controller"]
CMD ["run"]
