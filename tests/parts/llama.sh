#!/usr/bin/env bash
# Starts one real llama-server in the foreground. It execs, so the process the caller spawned is the server itself and
# SIGKILL hits it. One server answers chat, completions and embeddings: with the generated model it does all three.
#
#   parts/llama.sh PORT [tiny|slow|FILE.gguf] [llama-server options]
#   parts/llama.sh --version
set -euo pipefail

CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/sluice-tests
ROOT=$CACHE/llama

if [ -n "${SLUICE_TESTS_LLAMA:-}" ]; then
    server=("$SLUICE_TESTS_LLAMA")
elif [ -x "$ROOT/usr/bin/llama-server" ]; then
    linker=$(echo "$ROOT"/lib*/ld-linux-*.so.*)
    libraries=$(dirname "$(readlink -f "$linker")")
    server=("$linker" --library-path "$libraries:$libraries/llama" "$ROOT/usr/bin/llama-server")
else
    echo "llama.sh: no llama-server in $ROOT; run tests/install.sh" >&2
    exit 1
fi

if [ "${1:-}" = --version ]; then exec "${server[@]}" --version; fi

port=${1:?usage: llama.sh PORT [tiny|slow|FILE.gguf] [options]}
model=${2:-tiny}
shift $(($# < 2 ? $# : 2))
case $model in tiny | slow) model=$CACHE/$model.gguf ;; esac
[ -f "$model" ] || { echo "llama.sh: $model is missing; run tests/install.sh" >&2; exit 1; }

exec "${server[@]}" --model "$model" --host 127.0.0.1 --port "$port" --alias tiny --jinja --metrics --slots \
    --parallel 4 --ctx-size 32768 --threads 1 --no-ui --offline --embedding --pooling mean "$@"
