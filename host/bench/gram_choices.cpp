// SPDX-License-Identifier: Apache-2.0
#include "host/bench/gram_choices.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "host/cpu/passes.hpp"
#include "kernels/common/tuning.hpp"
#include "kernels/gram/gram.hpp"
#include "rules/needs.hpp"

namespace bragg::bench {

namespace {

namespace cuda = detail::cuda;

bool computes(const std::string& choice, const Case& one) {
  const detail::PassNeeds needs = detail::needs_of(one.pipeline);
  if (!needs.products) return false;
  return std::any_of(std::begin(cuda::named_gram_units), std::end(cuda::named_gram_units),
                     [&](const cuda::NamedGramUnit& known) {
                       if (choice != known.name) return false;
                       return needs.pairs ? cuda::has_kernel(known.unit, one.n, one.dtype)
                                          : cuda::unit_of_lengths(known.unit, one.dtype) == known.unit;
                     });
}

}  // namespace

std::vector<std::string> gram_choices() {
  std::vector<std::string> names;
  for (const cuda::NamedGramUnit& one : cuda::named_gram_units) names.emplace_back(one.name);
  return names;
}

std::vector<Case> by_choice(const std::vector<Case>& cases, std::span<const std::string> choices) {
  std::vector<Case> all;
  for (const Case& one : cases) {
    const std::size_t before = all.size();
    for (const std::string& choice : choices) {
      if (!computes(choice, one)) continue;
      all.push_back(one);
      all.back().gram = choice;
    }
    if (all.size() == before) all.push_back(one);
  }
  return all;
}

std::vector<double>& FirstProducts::of(const Pipeline& pipeline, int n) {
  if (detail::takes_pairs(pipeline)) return pairs;
  if (lengths.empty() && !pairs.empty()) {
    lengths.resize(pairs.size());
    for (std::size_t k = 0; k < pairs.size(); k += static_cast<std::size_t>(n) + 1) lengths[k] = pairs[k];
  }
  return lengths;
}

double share_of_bound(std::span<const double> a, std::span<const double> b, int n) {
  const auto rows = static_cast<std::size_t>(n);
  const double rounding = detail::gram_rounding(cuda::gram_additions);
  double worst = 0;
  for (std::size_t i = 0; i < rows; ++i) {
    for (std::size_t j = 0; j < rows; ++j) {
      const double difference = std::fabs(a[i * rows + j] - b[i * rows + j]);
      const double lengths = std::sqrt(a[i * rows + i]) * std::sqrt(a[j * rows + j]);
      if (difference == 0) continue;
      const double share = difference / (2 * rounding * lengths);
      worst = std::isfinite(share) ? std::max(worst, share) : std::numeric_limits<double>::infinity();
    }
  }
  return worst;
}

}  // namespace bragg::bench
