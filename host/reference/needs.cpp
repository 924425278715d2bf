// SPDX-License-Identifier: Apache-2.0
// The column "needs" of docs/rules.md: each stage against the number of points that reach it.
#include <algorithm>
#include <numeric>
#include <stdexcept>
#include <string>

#include "host/reference/rules.hpp"

namespace bragg::reference {

namespace {

void need(bool holds, const char* bound) {
  if (!holds) throw std::invalid_argument(std::string("needs ") + bound);
}

void need_minority(int f, int n) { need(f >= 0 && 2LL * f < n, "0 <= f and 2f < n"); }

void need_neighbors(int f, int neighbors, int n) {
  if (neighbors == automatic || neighbors == n - f - 2) {
    need(f >= 0 && n >= 2LL * f + 3, "0 <= f and n >= 2f+3");
  } else {
    need_minority(f, n);
    need(1 <= neighbors && neighbors <= n - f - 1, "1 <= neighbors <= n-f-1");
  }
}

/// Checks a pipeline before any data is seen.
struct Check {
  int n;                    // points at this stage
  std::vector<int> labels;  // of these points
  bool weighted;

  void unweighted() const {
    if (weighted) throw std::invalid_argument("client weights are not defined for this rule");
  }

  void operator()(const Nnm& rule) {
    need_minority(rule.f, n);
    weighted = false;
  }
  void operator()(const Bucketing& rule) {
    need(1 <= rule.s && rule.s <= n, "1 <= s <= n");
    if (!rule.permutation.empty()) {
      std::vector<int> sorted = rule.permutation;
      std::sort(sorted.begin(), sorted.end());
      std::vector<int> identity(static_cast<std::size_t>(n));
      std::iota(identity.begin(), identity.end(), 0);
      need(sorted == identity, "a permutation of 0..n-1");
    }
    n = (n + rule.s - 1) / rule.s;
    labels.resize(static_cast<std::size_t>(n));
    std::iota(labels.begin(), labels.end(), 0);
  }
  void operator()(const Clip& rule) { need(rule.c >= 0, "c >= 0"); }
  void operator()(const Arc& rule) { need_minority(rule.f, n); }

  void operator()(const Mean&) {}
  void operator()(const Median&) {}
  void operator()(const TrimmedMean& rule) { need_minority(rule.f, n); }
  void operator()(const Meamed& rule) {
    unweighted();
    need_minority(rule.f, n);
  }
  void operator()(const Phocas& rule) {
    unweighted();
    need_minority(rule.f, n);
  }
  void operator()(const Krum& rule) {
    unweighted();
    need_neighbors(rule.f, rule.neighbors, n);
  }
  void operator()(const MultiKrum& rule) {
    need_neighbors(rule.f, rule.neighbors, n);
    need(rule.m == automatic || (1 <= rule.m && rule.m <= n), "1 <= m <= n");
  }
  void operator()(const GeometricMedian& rule) {
    need(rule.nu >= 0 && rule.tol >= 0 && rule.max_iters >= 1, "nu >= 0, tol >= 0, max_iters >= 1");
    need(rule.start == Start::medoid || rule.start == Start::mean || rule.start == Start::origin,
         "start = medoid, mean or origin");
  }
  void operator()(const CenteredClipping& rule) {
    need(rule.tau > 0 && rule.iters >= 1, "tau > 0, iters >= 1");
    need(rule.start == Start::previous || rule.start == Start::reference || rule.start == Start::origin,
         "start = previous, reference or origin");
  }
  void operator()(const Mda& rule) { need_minority(rule.f, n); }
  void operator()(const Smea& rule) {
    unweighted();
    need_minority(rule.f, n);
  }
  void operator()(const Caf& rule) {
    unweighted();
    need_minority(rule.f, n);
  }
  void operator()(const Monna& rule) {
    need_minority(rule.f, n);
    need(std::find(labels.begin(), labels.end(), rule.pivot) != labels.end(), "a pivot that takes part");
  }
  void operator()(const Cge& rule) { need_minority(rule.f, n); }
  void operator()(const Bulyan& rule) {
    unweighted();
    need(rule.f >= 0 && n >= 4LL * rule.f + 3, "0 <= f and n >= 4f+3");
  }
};

}  // namespace

void check_needs(const Pipeline& pipeline, const std::vector<int>& active, bool weighted) {
  need(!active.empty(), "n >= 1");
  Check check{static_cast<int>(active.size()), active, weighted};
  for (const PreAggregator& rule : pipeline.pre) std::visit(check, rule);
  std::visit(check, pipeline.rule);
}

}  // namespace bragg::reference
