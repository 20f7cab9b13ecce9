# Builds one program's image with Docker; `make images` builds the same without it.
#   docker build --build-arg PROGRAM=atomix-node -t ghcr.io/atomix/atomix-node:0.1.0 .
# Programs: atomix-operator, atomix-node, atomix-runtime, counter (image atomix-example-counter).
FROM rust:1.95-bookworm AS build
ARG PROGRAM
WORKDIR /source
COPY . .
RUN --mount=type=cache,target=/source/target --mount=type=cache,target=/usr/local/cargo/registry \
    cargo build --locked --release --bin "$PROGRAM" && cp "target/release/$PROGRAM" /program

FROM gcr.io/distroless/cc-debian12:nonroot
ARG PROGRAM
COPY --from=build /program /bin/program
USER 65532:65532
ENTRYPOINT ["/bin/program"]
