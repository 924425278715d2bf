// SPDX-License-Identifier: Apache-2.0
#include "host/files/output_plan.hpp"

#include <fmt/format.h>
#include <sys/stat.h>
#include <bragg/version.hpp>

#include <algorithm>
#include <cstdint>

#include "host/files/server_step.hpp"
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

void check_extension(const Inputs& inputs, const std::filesystem::path& output) {
  const std::filesystem::path extension = output.extension();
  if (inputs.npy && (extension == ".safetensors" || extension == ".npz")) {
    throw Error(Status::invalid_argument,
                fmt::format("output {}: npy inputs make an npy; name it so", show(output.string())));
  }
  if (!inputs.npy && extension == ".npy") {
    throw Error(Status::invalid_argument,
                fmt::format("output {}: these inputs make no npy; name it .safetensors or .npz",
                            show(output.string())));
  }
}

}  // namespace

OutputPlan plan_output(const Inputs& inputs, const Pipeline& pipeline, const std::filesystem::path& output,
                       const FileOptions& options) {
  check_extension(inputs, output);
  OutputPlan plan{.tensors = inputs.tensors, .layout = {}};
  if (const ElementType* const wanted = wanted_type(options)) {
    for (TensorInfo& tensor : plan.tensors) {
      if (element_type_of(tensor).kind != ElementKind::floating) continue;
      if (__builtin_mul_overflow(tensor.elements, wanted->bytes, &tensor.bytes)) {
        throw Error(Status::invalid_argument,
                    fmt::format("out_dtype = {}: tensor {} would have more than 2^63 - 1 bytes", wanted->name,
                                show(tensor.name)));
      }
      tensor.dtype = wanted->name;
    }
  }
  if (inputs.npy) {
    if (options.shard_size > 0)
      throw Error(Status::invalid_argument, "shard_size: npy inputs make one npy; leave it out");
    plan.layout = single_layout(npy_layout(plan.tensors.front()), 1);
    return plan;
  }
  if (output.extension() == ".npz" && options.shard_size == 0) {
    plan.layout = npz_model_layout(plan.tensors);
    return plan;
  }
  Metadata metadata;
  if (inputs.format) metadata.emplace_back("format", *inputs.format);
  metadata.emplace_back("bragg_n", std::to_string(inputs.rows.size()));
  metadata.emplace_back("bragg_pipeline", bragg::to_string(pipeline));
  if (options.server) metadata.emplace_back("bragg_server", to_string(*options.server));
  metadata.emplace_back("bragg_version", BRAGG_VERSION_STRING);
  plan.layout = options.shard_size > 0
                    ? sharded_layout(plan.tensors, metadata, options.shard_size)
                    : single_layout(safetensors_layout(plan.tensors, metadata), plan.tensors.size());
  return plan;
}

void check_output(const char* what, const std::filesystem::path& path, const Inputs& inputs) {
  struct stat there {};
  if (::stat(path.c_str(), &there) != 0) return;
  const auto is_there = [&](std::uint64_t device, std::uint64_t inode) {
    return device == there.st_dev && inode == there.st_ino;
  };
  const auto check = [&](const PlacedModel& model, const char* role) {
    const auto& files = model.files;
    bool taken = std::any_of(files.begin(), files.end(), [&](const SourceFile& source) {
      return is_there(source.id.device, source.id.inode);
    });
    // One that could not be opened is the worker's file nevertheless.
    struct stat input {};
    taken = taken || (::stat(model.path.c_str(), &input) == 0 && is_there(input.st_dev, input.st_ino));
    if (!taken) return;
    throw Error(Status::invalid_argument, fmt::format("{} {} is a file of the {} {}; write to another one",
                                                      what, path.string(), role, model.path.string()));
  };
  for (const PlacedModel& model : inputs.models) check(model, "input");
  if (inputs.base) check(*inputs.base, "base");
}

}  // namespace bragg::detail
