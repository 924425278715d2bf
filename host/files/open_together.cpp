// SPDX-License-Identifier: Apache-2.0
#include "host/files/open_together.hpp"

#include <fmt/format.h>
#include <bragg/version.hpp>

#include <algorithm>
#include <array>
#include <string>
#include <utility>
#include <vector>

#include "host/files/holders.hpp"
#include "host/files/integers.hpp"
#include "host/files/packed.hpp"
#include "host/files/server_step.hpp"
#include "host/sharded/agreement.hpp"

namespace bragg::detail {

namespace {

template <class F>
Ranks::Topic topic(const char* name, F add) {
  Digest digest;
  add(digest);
  return {name, digest.value()};
}

void add_all(Digest& digest, const std::vector<std::string>& texts) {
  digest.add(texts.size());
  for (const std::string& text : texts) digest.add(std::string_view(text));
}

void agree_on_arguments(Ranks& ranks, const Pipeline& pipeline, std::span<const std::filesystem::path> paths,
                        const std::filesystem::path& output, const FileOptions& options) {
  ranks.agree(std::array{
      topic("different versions of bragg",
            [](Digest& digest) { digest.add(std::string_view(BRAGG_VERSION_STRING)); }),
      topic("different pipelines",
            [&](Digest& digest) { digest.add(std::string_view(to_string(pipeline))); }),
      topic("different inputs, bases or outputs",
            [&](Digest& digest) {
              for (const std::filesystem::path& path : paths) digest.add(std::string_view(path.native()));
              digest.add(std::string_view(output.native()));
              digest.add(options.base.has_value());
              if (options.base) digest.add(std::string_view(options.base->native()));
            }),
      topic("different weights", [&](Digest& digest) { digest.add(options.weights); }),
      topic("different options",
            [&](Digest& digest) {
              digest.add(options.options.scope);
              digest.add(options.options.max_weight_share);
              digest.add(options.options.out_dtype.has_value());
              if (options.options.out_dtype) digest.add(*options.options.out_dtype);
              digest.add(std::string_view(options.out_dtype));
              digest.add(options.shard_size);
              digest.add(options.bad_inputs);
              digest.add(options.integers);
              digest.add(options.allow_nonfinite);
              digest.add(static_cast<bool>(options.hashed));
              digest.add(options.partial);
              digest.add(std::string_view(options.server ? to_string(*options.server) : ""));
              digest.add(std::string_view(options.server_state.native()));
              for (const auto* const patterns :
                   {&options.judge_by, &options.ignore_in_distances, &options.exclude, &options.copy})
                add_all(digest, *patterns);
            }),
  });
}

/// What tells a file from another of its name.
std::uint64_t mark_of_files(const PlacedModel& model) {
  Digest digest;
  for (const SourceFile& file : model.files) {
    digest.add(file.id.size);
    digest.add(file.id.modified_ns);
  }
  return digest.value();
}

void agree_on_files(Ranks& ranks, const Inputs& inputs) {
  ranks.agree(std::array{topic("files that differ", [&](Digest& digest) {
    for (const TensorInfo& tensor : inputs.tensors) {
      digest.add(std::string_view(tensor.name));
      digest.add(std::string_view(tensor.dtype));
      digest.add(tensor.shape);
    }
    digest.add(inputs.rows.size());
    digest.add(std::string_view(inputs.format.value_or("")));
    const auto add = [&](const PlacedModel& model) { digest.add(mark_of_files(model)); };
    for (const InputRow& row : inputs.rows) {
      if (row.bad.empty() && !row.left_out) add(inputs.models[row.model]);
    }
    if (inputs.base) add(*inputs.base);
  })});
}

/// `bad` becomes what any rank has found. False: not all have found the same.
bool join_bad(Ranks& ranks, const Inputs& inputs, std::vector<std::string>& bad) {
  std::vector<std::string> own(inputs.models.size());
  for (const InputRow& row : inputs.rows) own[row.model] = row.bad;
  Packer mine;
  mine.put(own.size());
  for (const std::string& reason : own) mine.put(std::string_view(reason));
  bad.assign(own.size(), "");
  std::vector<int> finders(own.size(), 0);
  for (const std::string& theirs : ranks.gather(mine.bytes())) {
    const auto reasons = Unpacker(theirs).take_list<std::string>();
    for (std::size_t i = 0; i < bad.size(); ++i) {
      finders[i] += reasons.at(i).empty() ? 0 : 1;
      if (bad[i].empty()) bad[i] = reasons.at(i);
    }
  }
  return std::all_of(finders.begin(), finders.end(),
                     [&](int found) { return found == 0 || found == ranks.size(); });
}

/// Inputs that are other files for some ranks become bad ones. False: there are some. (One alone has no
/// others to go on with: agree_on_files refuses it.)
bool join_unlike(Ranks& ranks, const Inputs& inputs, std::vector<std::string>& bad) {
  if (inputs.models.size() == 1) return true;
  Packer mine;
  for (const PlacedModel& model : inputs.models) mine.put(mark_of_files(model));
  const std::vector<std::string> all = ranks.gather(mine.bytes());
  bool alike = true;
  std::vector<Unpacker> from(all.begin(), all.end());
  for (std::string& reason : bad) {
    const auto first = from.front().take<std::uint64_t>();
    for (std::size_t r = 1; r < from.size(); ++r) {
      if (from[r].take<std::uint64_t>() == first || !reason.empty()) continue;
      reason = fmt::format("ranks 0 and {} find different files there", r);
      alike = false;
    }
  }
  return alike;
}

}  // namespace

Inputs open_together(Ranks& ranks, const Pipeline& pipeline, std::span<const std::filesystem::path> paths,
                     const std::filesystem::path& output, const FileOptions& options) {
  agree_on_arguments(ranks, pipeline, paths, output, options);
  FileOptions own = options;  // what a rank finds is told when all know it, or none will
  std::vector<std::pair<std::size_t, std::string>> found;
  if (ranks.many()) {
    own.found_bad = [&](std::size_t row, const std::string&, const std::string& reason) {
      found.emplace_back(row, reason);
    };
  }
  std::vector<std::string> bad;
  for (;;) {
    Inputs inputs;
    const auto open = [&] {
      if (ranks.many() && options.options.device == Device::cuda) {
        throw Error(Status::unsupported,
                    "device = cuda; ranks aggregate files on the CPU: take device = cpu, or one process");
      }
      inputs = open_inputs(paths, own, bad);
      if (options.partial && !options.base) drop_few_held(inputs, pipeline, options);
      check_integers(inputs, options.integers);
    };
    try {
      ranks.together(open);
    } catch (const Error&) {
      for (std::size_t row = 0; row < bad.size(); ++row) {
        if (!bad[row].empty()) found.emplace_back(row, bad[row]);
      }
      for (const auto& [row, reason] : found) {
        if (options.found_bad) options.found_bad(row, paths[row].string(), reason);
      }
      throw;
    }
    if (!ranks.many()) return inputs;
    if (!join_bad(ranks, inputs, bad) || !join_unlike(ranks, inputs, bad)) continue;
    ranks.together([&] {
      for (std::size_t i = 0; i < bad.size(); ++i) {
        if (!bad[i].empty()) mark_bad(inputs, i, bad[i], options);
      }
    });
    agree_on_files(ranks, inputs);
    return inputs;
  }
}

void mark_lost(Inputs& inputs, const InputLost& lost, const FileOptions& options) {
  for (const LostInput& input : lost.inputs) mark_bad(inputs, input.model, input.reason, options);
}

}  // namespace bragg::detail
