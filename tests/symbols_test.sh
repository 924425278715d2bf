#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The shared library exports bragg's public interface and nothing else.
#   symbols_test.sh LIBRARY
set -euo pipefail

symbols=$(nm -D --defined-only -C "$1" | cut -c20-)
# What may follow the type letter: bragg_… of the C interface; bragg::… and its vtables and type information.
public='^((vtable|typeinfo|typeinfo name) for )?bragg(_|::)'
foreign=$(grep -Ev "$public" <<< "$symbols" || true)
internal=$(grep -F 'bragg::detail' <<< "$symbols" || true)

status=0
if [[ -n $foreign ]]; then
  echo "exported, but not of bragg's interface:" "$foreign" >&2
  status=1
fi
if [[ -n $internal ]]; then
  echo "exported internals:" "$internal" >&2
  status=1
fi
for name in 'bragg::parse(' 'bragg::Plan::run(' 'typeinfo for bragg::ParseError' 'bragg_'; do
  if ! grep -qF "$name" <<< "$symbols"; then
    echo "not exported: $name" >&2
    status=1
  fi
done
exit $status
