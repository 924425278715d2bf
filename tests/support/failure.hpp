// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>
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

/// The message of the Error that `call` throws; fails the test when it throws none, or another status.
template <class CallF>
std::string message_of(CallF call, Status status = Status::invalid_argument) {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_EQ(error.status(), status) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return "";
}

}  // namespace bragg::test
