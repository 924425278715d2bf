#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs the Debian or Ubuntu packages that bragg is built with and that are not there yet.
#   scripts/setup.sh        what the build and the tests need
#   scripts/setup.sh --ci   and what the checks need
#   scripts/setup.sh --fashion    and Fashion-MNIST, for scripts/experiments.sh
#   scripts/setup.sh --clang | --aarch64    and what scripts/portable.sh needs
set -euo pipefail

foreign=  # architecture whose packages are wanted beside this machine's

packages=(g++ cmake ninja-build ccache pkg-config libhwy-dev libfmt-dev nlohmann-json3-dev zlib1g-dev libssl-dev libcli11-dev
  libgtest-dev libbenchmark-dev make python3 python3-dev python3-venv)
case "${1-}" in
  "") ;;
  --ci) packages+=(clang-format clang-tidy fish zsh openmpi-bin libopenmpi-dev python3-torch) ;;
  --fashion) packages+=(dataset-fashion-mnist) ;;
  --clang) packages+=(clang libomp-dev) ;;
  --aarch64)
    packages+=(g++-aarch64-linux-gnu qemu-user-static libhwy-dev:arm64 libgomp1:arm64 libfmt-dev:arm64
      zlib1g-dev:arm64 libssl-dev:arm64 libgtest-dev:arm64)
    foreign=arm64
    ;;
  *)
    echo "usage: scripts/setup.sh [--ci|--fashion|--clang|--aarch64]" >&2
    exit 2
    ;;
esac

if ! command -v dpkg-query > /dev/null; then
  echo "setup: not a Debian system; install yourself: ${packages[*]}" >&2
  exit 0
fi

missing=()
for package in "${packages[@]}"; do
  # A line per architecture that it is installed for.
  if ! dpkg-query -W -f '${db:Status-Status}\n' "$package" 2> /dev/null | grep -qx installed; then
    missing+=("$package")
  fi
done
if ((${#missing[@]} == 0)); then
  exit 0
fi

as_root=()
if [[ $EUID -ne 0 ]]; then
  if ! command -v sudo > /dev/null; then
    echo "setup: neither root nor sudo; ask someone who is to install: ${missing[*]}" >&2
    exit 1
  fi
  as_root=(sudo)
fi
echo "setup: installing ${missing[*]}"
[[ -z "$foreign" ]] || "${as_root[@]}" dpkg --add-architecture "$foreign"
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
