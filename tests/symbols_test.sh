#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The shared library exports bragg's public interface and nothing else.
#   symbols_test.sh LIBRARY
set -euo pipefail

symbols=$(nm -D --defined-only --format=posix "$1" | cut -d' ' -f1)
# bragg_… of the C interface; members of namespace bragg::v0, their vtables and type information.
foreign=$(grep -Ev '^(bragg_|_ZNK?5bragg2v0|_ZT[ISV]N5bragg2v0)' <<< "$symbols" || true)
internal=$(grep -E '^_Z(T[ISV])?NK?5bragg6detail' <<< "$symbols" || true)

status=0
if [[ -n $foreign ]]; then
  printf "exported, but not of bragg's interface:\n%s\n" "$(c++filt <<< "$foreign")" >&2
  status=1
fi
if [[ -n $internal ]]; then
  printf 'exported internals:\n%s\n' "$(c++filt <<< "$internal")" >&2
  status=1
fi
for name in 'bragg::v0::parse(' 'bragg::v0::Plan::run(' 'bragg::v0::attacks::' 'typeinfo for bragg::v0::ParseError'; do
  if ! c++filt <<< "$symbols" | grep -F "$name" > /dev/null; then
    echo "not exported: $name" >&2
    status=1
  fi
done
if ! grep '^bragg_' <<< "$symbols" > /dev/null; then
  echo "not exported: the C interface" >&2
  status=1
fi
exit $status
