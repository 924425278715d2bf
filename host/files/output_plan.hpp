// SPDX-License-Identifier: Apache-2.0
// What a file aggregation writes.
#pragma once

#include "host/files/inputs.hpp"
#include "host/io/output_model.hpp"

namespace bragg::detail {

struct OutputPlan {
  std::vector<TensorInfo> tensors;  ///< in the inputs' order
  ModelLayout layout;
};

/// `output`: where it goes; its extension must not belie what is written.
/// @throws Error invalid_argument: no such out_dtype, or one that the output's format lacks; shards of npy.
OutputPlan plan_output(const Inputs& inputs, const Pipeline& pipeline, const std::filesystem::path& output,
                       const FileOptions& options);

/// What is written may not take the place of a file that it is made from: the next run would read it.
/// @throws Error invalid_argument, which begins with `what`.
void check_output(const char* what, const std::filesystem::path& path, const Inputs& inputs);

}  // namespace bragg::detail
