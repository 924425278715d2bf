#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Times whole pipelines, and NumPy beside them where Python has it, and writes one JSON file.
#
#   bench/run.sh BUILD_FOLDER OUTPUT.json [PYTHON]
set -euo pipefail
build=$1
output=$2
python=${3:-python3}
here=$(cd "$(dirname "$0")" && pwd)
shapes=(16 1000000 64 1000000 16 10000000)
export OMP_PROC_BIND=true

ours=$("$build/bench/pipelines" "${shapes[@]}")
peers='[]'
if "$python" -c 'import numpy' 2> /dev/null; then
  peers=$("$python" "$here/numpy_peer.py" "${shapes[@]}")
fi
cpu=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
flags=$(grep -m1 -oE 'avx512f|avx2' /proc/cpuinfo | sort -u | paste -sd' ')
commit=$(git -C "$here" describe --always --dirty --abbrev=12)
printf '{"date": "%s", "commit": "%s", "cpu": "%s", "cores": %s, "vectors": "%s", "command": "bench/run.sh",\n"results": %s,\n"peers": %s}\n' \
  "$(date +%F)" "$commit" "$cpu" "$(nproc)" "$flags" "$ours" "$peers" > "$output.tmp"
"$python" -m json.tool --indent 1 "$output.tmp" > /dev/null
mv "$output.tmp" "$output"
