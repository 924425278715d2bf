// SPDX-License-Identifier: Apache-2.0
// Cases to measure: pipelines on shapes, as given or from a preset.
#pragma once

#include <bragg/pipeline.hpp>
#include <bragg/updates.hpp>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "host/bench/models.hpp"

namespace bragg::bench {

/// Where a run has its updates from.
enum class Source : std::uint8_t {
  memory,
  page_cache,  ///< files that the system holds in memory
  disk,        ///< files that it does not
};
const char* to_string(Source source) noexcept;

/// One row of the result.
struct Case {
  std::string form;  ///< the rule as requested, e.g. "krum(f=F)"
  Pipeline pipeline;
  int n = 0;
  Size size;
  DType dtype = DType::f32;
  Source source = Source::memory;
  std::string gram = {};  ///< who is to compute inner products (gram_choices); empty: left to the device
};

/// Each rule on each shape.
struct Block {
  std::vector<std::string> rules;  ///< texts; F is ⌊n/5⌋
  std::vector<int> n;
  std::vector<std::string> sizes;  ///< as parse_size reads them
  std::vector<DType> dtypes;
  int tensors = 1;  ///< that each update is in
};

struct Preset {
  std::string_view name;
  std::string_view what;
  std::vector<Block> blocks;
};

std::span<const Preset> presets();

/// @throws Error invalid_argument: an unknown name.
const Preset& preset_of(std::string_view name);

/// A text of several rules' mistake.
class UnreadableRule : public ParseError {
 public:
  UnreadableRule(const ParseError& error, std::string rule_in)
      : ParseError(error.what(), error.column()), rule(std::move(rule_in)) {}
  std::string rule;  ///< what was read
};

/// "krum(f=F)" with F = ⌊n/5⌋. @throws UnreadableRule; Error invalid_argument: a bound is broken for n.
Pipeline pipeline_of(const std::string& form, int n);

/// Shape by shape, so that data is made once for all rules; equal ones are left out.
/// @throws as pipeline_of, parse_size, and Error invalid_argument: n out of range.
std::vector<Case> cases_of(std::span<const Block> blocks);

}  // namespace bragg::bench
