// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

namespace bragg::bench {

struct Finished {
  int code = 0;    ///< exit status
  int signal = 0;  ///< that ended it, or 0
  std::string out, err;
};

/// Starts a program, found in PATH, on all cores of this process and waits for its end.
/// @throws Error io_error: it could not be started.
Finished run_program(const std::vector<std::string>& arguments);

}  // namespace bragg::bench
