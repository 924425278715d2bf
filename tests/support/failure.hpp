// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bragg/error.hpp>
#include <string>
#include <utility>

namespace bragg::test {

/// How a call fails: its error's status and message; ok where it does not.
template <class F>
std::pair<Status, std::string> failure_of(F f) {
  try {
    f();
  } catch (const Error& error) {
    return {error.status(), error.what()};
  }
  return {Status::ok, ""};
}

}  // namespace bragg::test
