#!/usr/bin/env bash
# Installs what is missing, then runs the end-to-end tests. Arguments go to pytest: tests/run.sh -k failover -x
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
"$HERE/install.sh"
eval "$("$HERE/install.sh" --paths)"
cd "$HERE"
exec "$VENV/bin/pytest" "$@"
