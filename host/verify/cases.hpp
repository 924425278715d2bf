// SPDX-License-Identifier: Apache-2.0
// Cases to verify: pipelines, and shapes and data for them, drawn from a seed.
#pragma once

#include <cstdint>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "host/verify/run.hpp"

namespace bragg::verify {

/// Every rule and a spread of pipelines, as text in which F stands for f, and N1 for n − f − 1.
std::span<const char* const> pipelines();

/// The names of the rules in such a text.
std::vector<std::string> rules_in(std::string_view pipeline);

/// The pipeline for n and f, where it is legal.
std::optional<Pipeline> legal_pipeline(const char* text, int n, int f);

/// The oracle lists subsets.
bool is_combinatorial(const Pipeline& pipeline);

/// A row of an aimed case.
enum class Role : std::uint8_t {
  honest,
  bad,
  absent,  ///< of weight 0
};

struct Case {
  const char* text = nullptr;  ///< one of pipelines()
  std::uint64_t seed = 0;
  int f = 0;
  Pipeline pipeline = {};
  Request request = {};          ///< for the CPU
  std::string data = {};         ///< in words
  std::vector<Role> roles = {};  ///< of the rows of an aimed case
};

/// Decided by pipeline, dtype and seed alone. `work` bounds n²d, which is what the oracle takes time for.
Case draw_case(const char* text, DType dtype, std::uint64_t seed, std::int64_t work);

/// Marks for the tensors of a row of d coordinates (Layout::tensors), at least one of them true.
std::vector<bool> draw_judged(std::mt19937_64& random, std::int64_t d);

/// "nnm(f=2) | median, n = 11, d = 257, f16, tensors, two clusters, 2 rows of NaN, weights".
std::string describe(const Case& drawn);

}  // namespace bragg::verify
