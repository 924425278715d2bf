// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "host/files/inputs.hpp"
#include "host/files/progress_counter.hpp"
#include "host/files/ranks.hpp"

namespace bragg::detail {

/// Tells options.hashed of every file of the inputs and the base; each rank reads some of them. What is read
/// later is what is hashed here, since a file that is not the one that was opened any more is an error for
/// whoever reads it. Files that cannot be read, or that are larger than a model of the form can be, are
/// passed over: a stranger must not decide how long this takes. Threads have been started.
void hash_inputs(const Inputs& inputs, const FileOptions& options, Ranks& ranks, int threads,
                 ProgressCounter& progress, std::uint64_t& bytes_read);

/// The same of inputs, and the base, that could not be opened as models of one form.
void hash_unopened(std::span<const std::filesystem::path> inputs, const FileOptions& options, int threads,
                   ProgressCounter& progress, std::uint64_t& bytes_read);

}  // namespace bragg::detail
