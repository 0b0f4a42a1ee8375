#!/usr/bin/env bash
# Writes the stubs in gen/ anew. Needs Python with ../python/requirements.txt, which
# brings the protocol compiler; the plugins are the tools that go.mod names.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

package=example.com/duologue-chat/gen/duologue/chat/v1
options=(paths=source_relative)
for file in chat frames model; do
  # The contract names no Go package: whose module it is, is for each client to say.
  options+=("Mduologue/chat/v1/$file.proto=$package;chatv1")
done
joined=$(IFS=,; echo "${options[*]}")

rm -rf gen
mkdir gen
"${PYTHON:-python3}" -m grpc_tools.protoc --proto_path=../../proto \
  --plugin="protoc-gen-go=$(go tool -n protoc-gen-go)" --go_out=gen --go_opt="$joined" \
  --plugin="protoc-gen-go-grpc=$(go tool -n protoc-gen-go-grpc)" --go-grpc_out=gen --go-grpc_opt="$joined" \
  duologue/chat/v1/chat.proto duologue/chat/v1/frames.proto duologue/chat/v1/model.proto
