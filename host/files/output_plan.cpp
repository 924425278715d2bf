// SPDX-License-Identifier: Apache-2.0
#include "host/files/output_plan.hpp"

#include <fmt/format.h>
#include <sys/stat.h>
#include <bragg/version.hpp>

#include <algorithm>
#include <cstdint>

#include "host/io/element_type.hpp"

namespace bragg::detail {

namespace {

/// Null: each tensor's own.
const ElementType* wanted_type(const FileOptions& options) {
  if (options.out_dtype.empty())
    return options.options.out_dtype ? &element_type_of(*options.options.out_dtype) : nullptr;
  const ElementType* const wanted = find_floating_type(options.out_dtype);
  if (wanted == nullptr) {
    throw Error(
        Status::invalid_argument,
        fmt::format("out_dtype = {}; needs f64, f32, f16, bf16, f8_e4m3 or f8_e5m2", options.out_dtype));
  }
  return wanted;
}

}  // namespace

OutputPlan plan_output(const Inputs& inputs, const Pipeline& pipeline, const FileOptions& options) {
  OutputPlan plan{.tensors = inputs.tensors, .layout = {}};
  if (const ElementType* const wanted = wanted_type(options)) {
    for (const std::size_t t : inputs.floating) {
      TensorInfo& tensor = plan.tensors[t];
      if (__builtin_mul_overflow(tensor.elements, wanted->bytes, &tensor.bytes)) {
        throw Error(Status::invalid_argument,
                    fmt::format("out_dtype = {}: tensor {} would have more than 2^63 - 1 bytes", wanted->name,
                                show(tensor.name)));
      }
      tensor.dtype = wanted->name;
    }
  }
  if (inputs.npy) {
    plan.layout = npy_layout(plan.tensors.front());
    return plan;
  }
  Metadata metadata;
  if (inputs.format) metadata.emplace_back("format", *inputs.format);
  metadata.emplace_back("bragg_n", std::to_string(inputs.rows.size()));
  metadata.emplace_back("bragg_pipeline", bragg::to_string(pipeline));
  metadata.emplace_back("bragg_version", BRAGG_VERSION_STRING);
  plan.layout = safetensors_layout(plan.tensors, metadata);
  return plan;
}

void check_output(const std::filesystem::path& output, const Inputs& inputs) {
  struct stat there {};
  if (::stat(output.c_str(), &there) != 0) return;
  const auto is_there = [&](std::uint64_t device, std::uint64_t inode) {
    return device == there.st_dev && inode == there.st_ino;
  };
  const auto check = [&](const PlacedModel& model) {
    const auto& files = model.files;
    bool taken = std::any_of(files.begin(), files.end(), [&](const SourceFile& source) {
      return is_there(source.id.device, source.id.inode);
    });
    // One that could not be opened is the worker's file nevertheless.
    struct stat path {};
    taken = taken || (::stat(model.path.c_str(), &path) == 0 && is_there(path.st_dev, path.st_ino));
    if (!taken) return;
    throw Error(Status::invalid_argument,
                fmt::format("output {} is a file of the input {}; write to another one", output.string(),
                            model.path.string()));
  };
  for (const PlacedModel& model : inputs.models) check(model);
  if (inputs.base) check(*inputs.base);
}

}  // namespace bragg::detail
