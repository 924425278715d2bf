// SPDX-License-Identifier: Apache-2.0
#include <bragg/error.hpp>

namespace bragg {
inline namespace v0 {

const char* to_string(Status status) noexcept {
  switch (status) {
    case Status::ok:
      return "ok";
    case Status::invalid_argument:
      return "invalid_argument";
    case Status::too_many_nonfinite:
      return "too_many_nonfinite";
    case Status::too_large:
      return "too_large";
    case Status::nonfinite_base:
      return "nonfinite_base";
    case Status::unsupported:
      return "unsupported";
    case Status::bad_file:
      return "bad_file";
    case Status::io_error:
      return "io_error";
    case Status::out_of_memory:
      return "out_of_memory";
    case Status::internal:
      return "internal";
    case Status::not_converged:
      return "not_converged";
    case Status::nonfinite_pivot:
      return "nonfinite_pivot";
    case Status::no_majority:
      return "no_majority";
    case Status::communication:
      return "communication";
    case Status::disagreement:
      return "disagreement";
  }
  return "unknown status";
}

Error::Error(Status status, const std::string& message) : std::runtime_error(message), status_(status) {}
Error::~Error() = default;

ParseError::ParseError(const std::string& message, int column)
    : Error(Status::invalid_argument, message), column_(column) {}
ParseError::~ParseError() = default;

}  // namespace v0
}  // namespace bragg
