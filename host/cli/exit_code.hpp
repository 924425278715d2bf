// SPDX-License-Identifier: Apache-2.0
// Exit codes are part of the interface.
#pragma once

#include <bragg/error.hpp>

namespace bragg::cli {

inline int exit_code(Status status) {
  switch (status) {
    case Status::ok:
      return 0;
    case Status::invalid_argument:
    case Status::unsupported:
      return 2;
    case Status::bad_file:
      return 3;
    case Status::io_error:
    case Status::out_of_memory:
      return 4;
    case Status::too_many_nonfinite:
    case Status::nonfinite_base:
    case Status::too_large:
    case Status::not_converged:
    case Status::nonfinite_pivot:
    case Status::no_majority:
      return 5;
    case Status::communication:
      return 7;
    case Status::disagreement:
      return 8;
    case Status::internal:
      return 1;
  }
  return 1;
}

}  // namespace bragg::cli
