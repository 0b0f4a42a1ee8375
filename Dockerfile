# syntax=docker/dockerfile:1.7
# One image for every process of Duologue: the command says which one runs.

# With a C compiler, which aws-lc-sys needs.
FROM rust:1.95.0-bookworm AS chef
RUN cargo install cargo-chef --locked --version 0.1.78
WORKDIR /source

# What the dependencies are, without a line of our code: this changes seldom.
FROM chef AS recipe
COPY . .
RUN cargo chef prepare --recipe-path recipe.json

FROM chef AS build
COPY --from=recipe /source/recipe.json recipe.json
# The layer of the dependencies: built again only when the recipe changes.
RUN cargo chef cook --release --locked --bins --recipe-path recipe.json \
        -p duologue -p duologue-chat -p duologue-gateway -p duologue-presence \
        -p duologue-history
COPY . .
# Shown by /buildinfo.
ARG COMMIT=unknown
RUN DUOLOGUE_BUILD_COMMIT="$COMMIT" cargo build --release --locked --bins \
        -p duologue -p duologue-chat -p duologue-gateway -p duologue-presence \
        -p duologue-history \
    && mkdir -p /out/bin /out/mounts/data /out/mounts/keys /out/mounts/shared \
    && cp target/release/duologue target/release/duologue-chat \
        target/release/duologue-gateway target/release/duologue-presence \
        target/release/duologue-history /out/bin/

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /out/bin/ /usr/local/bin/
# A named volume that is mounted on one of these is the user's who runs the process.
COPY --from=build --chown=65532:65532 /out/mounts/ /
# The image's user `nonroot`, as a number, which every host understands.
USER 65532:65532
WORKDIR /data
CMD ["duologue", "serve"]
