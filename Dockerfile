# syntax=docker/dockerfile:1.7
# One image for every process of Duologue: the command says which one runs.

# With a C compiler, which aws-lc-sys and the embedded engine need.
FROM rust:1.95.0-bookworm AS build
WORKDIR /source
COPY . .
# The caches keep what was downloaded and every dependency that was built.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/source/target,sharing=locked \
    cargo build --locked --release --bins \
        -p duologue -p duologue-chat -p duologue-presence -p duologue-history \
    && mkdir -p /out/bin /out/data \
    && cp target/release/duologue target/release/duologue-chat \
        target/release/duologue-presence target/release/duologue-history /out/bin/

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /out/bin/ /usr/local/bin/
# A named volume that is mounted here is the user's who runs the process.
COPY --from=build --chown=nonroot:nonroot /out/data /data
USER nonroot
WORKDIR /data
CMD ["duologue", "serve"]
