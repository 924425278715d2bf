// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bragg/error.hpp>
#include <string>

namespace bragg::test {

struct Failure {
  Status status = Status::ok;
  std::string message;
};

/// How a call fails: its error's status and message; ok where it does not.
template <class F>
Failure failure_of(F f) {
  try {
    f();
  } catch (const Error& error) {
    return {error.status(), error.what()};
  }
  return {};
}

}  // namespace bragg::test
