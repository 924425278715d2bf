// SPDX-License-Identifier: Apache-2.0
// Inputs that all ranks of a job take for the same.
#pragma once

#include <filesystem>
#include <span>

#include "host/files/inputs.hpp"
#include "host/files/ranks.hpp"

namespace bragg::detail {

/// Opens the inputs as open_inputs, and checks what is asked of them. One that is bad for a rank is bad for
/// all. @throws Error as open_inputs and checks; unsupported: ranks on a device; disagreement: ranks were
/// given other arguments, or files that differ.
Inputs open_together(Ranks& ranks, const Pipeline& pipeline, std::span<const std::filesystem::path> paths,
                     const std::filesystem::path& output, const FileOptions& options);

/// They are bad inputs from now on.
void mark_lost(Inputs& inputs, const InputLost& lost, const FileOptions& options);

}  // namespace bragg::detail
