// SPDX-License-Identifier: Apache-2.0
#include "host/bench/cases.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "rules/with_f.hpp"

namespace bragg::bench {

namespace {

const std::vector<std::string>& headline_rules() {
  static const std::vector<std::string> rules = {
      "median",    "trimmed_mean(f=F)", "nnm(f=F) | trimmed_mean(f=F)",
      "krum(f=F)", "geometric_median",  "centered_clipping(tau=100, iters=5)",
  };
  return rules;
}

std::vector<Preset> make_presets() {
  const std::vector<std::string>& rules = headline_rules();
  const std::vector<std::string> three = {rules[0], rules[2], rules[4]};
  const DType f32 = DType::f32;
  return {
      {"small",
       "three rules at n = 8 and 16, to a million coordinates; some seconds",
       {{three, {8, 16}, {"1e4", "1e6"}, {f32}}}},
      {"readme",
       "the tables and plots of docs/benchmarks.md: six rules at n = 8 to 64, models by size, 16-bit "
       "updates; under ten "
       "minutes on two cores",
       {{rules, {8, 16, 32, 64}, {"1e6"}, {f32}},
        {rules, {8, 16, 32, 64}, {"1e7"}, {f32}},
        {{rules[0], rules[2], rules[3], rules[4]},
         {16},
         {"resnet-20", "resnet-56", "mobilenet-v2", "resnet-18", "resnet-50", "llama-2-7b/128"},
         {f32}},
        {rules, {16}, {"1e7"}, {DType::bf16, DType::f16}}}},
      {"large-n",
       "medians and trimmed means to n = 4096, krum and geometric_median to 512; a minute or two",
       {{{"median", "trimmed_mean(f=F)"}, {64, 128, 256, 512, 1024, 2048, 4096}, {"1e5"}, {f32}},
        {{"krum(f=F)", "geometric_median"}, {128, 256, 512}, {"1e5"}, {f32}}}},
      {"files",
       "models as people have them, in bf16: the 161 tensors of ResNet-50 and the 291 of a shard of Llama 2, "
       "for --files; two minutes, and 1 GB of disk",
       {{{rules[0], rules[1], rules[2], rules[3], rules[4]},
         {16},
         {"resnet-50", "llama-2-7b/256"},
         {DType::bf16}}}},
      {"tiny",
       "updates of a thousand to a hundred thousand coordinates, where a call's own cost shows",
       {{rules, {16}, {"1e3", "1e4", "1e5"}, {f32}}}},
  };
}

}  // namespace

const char* to_string(Source source) noexcept {
  return source == Source::memory ? "memory" : source == Source::disk ? "disk" : "page cache";
}

std::span<const Preset> presets() {
  static const std::vector<Preset> all = make_presets();
  return all;
}

const Preset& preset_of(std::string_view name) {
  std::string names;
  for (const Preset& preset : presets()) {
    if (preset.name == name) return preset;
    names += fmt::format("{}{}", names.empty() ? "" : ", ", preset.name);
  }
  throw Error(Status::invalid_argument,
              fmt::format("--preset: unknown preset '{}'; available: {}", name, names));
}

Pipeline pipeline_of(const std::string& form, int n) {
  const std::string text = detail::with_f(form, n / 5);
  try {
    Pipeline pipeline = parse(text);
    validate(pipeline, n);
    return pipeline;
  } catch (const ParseError& error) {
    throw UnreadableRule(error, text);
  }
}

std::vector<Case> cases_of(std::span<const Block> blocks) {
  constexpr int most_rows = 65535;
  std::vector<Case> cases;
  const auto known = [&](const Case& one) {
    return std::any_of(cases.begin(), cases.end(), [&](const Case& other) {
      return other.pipeline == one.pipeline && other.n == one.n && other.size.d == one.size.d &&
             other.size.model == one.size.model && other.size.tensors == one.size.tensors &&
             other.dtype == one.dtype;
    });
  };
  for (const Block& block : blocks) {
    for (const DType dtype : block.dtypes) {
      for (const std::string& text : block.sizes) {
        Size size = parse_size(text);
        size.tensors = block.tensors;
        tensor_sizes(size);  // throws where there are none
        for (const int n : block.n) {
          if (n < 1 || n > most_rows) {
            throw Error(Status::invalid_argument, fmt::format("--n: {}; needs 1 to {} rows", n, most_rows));
          }
          for (const std::string& form : block.rules) {
            Case one{.form = form, .pipeline = pipeline_of(form, n), .n = n, .size = size, .dtype = dtype};
            if (!known(one)) cases.push_back(std::move(one));
          }
        }
      }
    }
  }
  return cases;
}

}  // namespace bragg::bench
