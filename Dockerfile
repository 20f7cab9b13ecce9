# Builds one program's image with Docker, as a release; `make images` builds the same images without
# Docker, of the profile that the tests use.
#   docker build --build-arg PROGRAM=atomix-node -t ghcr.io/atomix/atomix-node:0.1.0 .
# Programs: atomix-operator, atomix-node, atomix-runtime, counter (image atomix-example-counter).
# The entrypoint is the program: nothing that runs an image relies on its path.
FROM rust:1.95-bookworm AS build
ARG PROGRAM
WORKDIR /source
COPY . .
RUN --mount=type=cache,target=/source/target --mount=type=cache,target=/usr/local/cargo/registry \
    cargo build --locked --workspace --release --bin "$PROGRAM" && cp "target/release/$PROGRAM" /program

FROM gcr.io/distroless/cc-debian12:nonroot
ARG PROGRAM
COPY --from=build /program /bin/program
USER 65532:65532
ENTRYPOINT ["/bin/program"]
