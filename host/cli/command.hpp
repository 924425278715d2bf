// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace bragg::cli {

/// The command, as `main` is called. @return its exit code.
int command(int argc, char** argv);

}  // namespace bragg::cli
