# Builds one program's image with Docker, as a release; `make images` builds the same images without
# Docker, of the profile that the tests use.
#   docker build --build-arg PROGRAM=atomix-node -t ghcr.io/atomix/atomix-node:0.1.0 .
# Programs: atomix-operator, atomix-node, atomix-runtime, counter (image atomix-example-counter). All
# are compiled for the first image; the others take what is there.
# The entrypoint is the program: nothing that runs an image relies on its path.
FROM rust:1.95-bookworm AS build
WORKDIR /source
COPY . .
RUN --mount=type=cache,target=/source/target --mount=type=cache,target=/usr/local/cargo/registry \
    cargo build --locked --workspace --release \
    --bin atomix-operator --bin atomix-node --bin atomix-runtime --bin counter \
    && mkdir /programs \
    && cd target/release && cp atomix-operator atomix-node atomix-runtime counter /programs

FROM gcr.io/distroless/cc-debian12:nonroot
ARG PROGRAM
COPY --from=build /programs/$PROGRAM /bin/program
USER 65532:65532
ENTRYPOINT ["/bin/program"]
