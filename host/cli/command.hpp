// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace bragg {
inline namespace v0 {
class Communicator;
}
}  // namespace bragg

namespace bragg::cli {

/// What a job's processes, who have lost each other, end with: whoever started them has to end the others.
inline constexpr int lost_each_other = 7;

/// The command, as `main` is called; with `communicator` that of a job's processes, bragg-mpi. @return its
/// exit code.
int command(int argc, char** argv, Communicator* communicator = nullptr);

}  // namespace bragg::cli
