#!/usr/bin/env bash
# Fail when a generated file or the lock file is not what the sources say.
set -euo pipefail
cd "$(dirname "$0")/.."
.venv/bin/python hack/generate.py --check
"${UV:-.tools/uv/bin/uv}" lock --check --quiet || {
    echo "uv.lock does not match pyproject.toml: run 'make lock' and commit the result" >&2
    exit 1
}
echo "crds/, docs/reference/, the chart's CRDs and uv.lock are current"
