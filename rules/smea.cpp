// SPDX-License-Identifier: Apache-2.0
// Exact search over the sets of f points to delete, in lexicographic order of what is kept. Everything is a
// statement about the scatter matrix of a set, Σ (x_i − μ)(x_i − μ)ᵀ, whose eigenvalues are those of the
// set's centred Gram matrix M:
//  - a set is worse than the best one found, of top eigenvalue σ, iff σI − M is not positive definite:
//  elimination tells,
//    at a fraction of the cost of an eigenvalue, and soonest when the outermost points come first;
//  - a point more never shrinks the scatter: where the points that are kept for certain are worse, all sets
//  below are;
//  - a deletion changes the scatter by rank one, so j deletions from a set of more than j eigenvalues above σ
//  leave one.
#include "rules/smea.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

#include "rules/solve/eigen.hpp"
#include "rules/solve/team.hpp"

namespace bragg::detail {

namespace {

constexpr double tie = 1e-12;
/// Less than this share is no improvement: it is within the rounding of σ, and well inside a tie.
constexpr double improvement = 1e-13;

std::size_t at(int i) { return static_cast<std::size_t>(i); }

class SmeaSearch {
 public:
  SmeaSearch(const double* gram, int ld, const std::vector<int>& points, int size);

  /// The set to keep, as indices into `points`.
  std::vector<int> run();

 private:
  struct Found {
    double top;
    std::vector<int> kept;
  };

  double distance(int i, int j) const { return about_[at(i) * at(n_) + at(j)]; }
  void center(const double* gram, int ld, const std::vector<int>& points);
  void fill(const std::vector<int>& set);
  bool reaches(const std::vector<int>& set, double top);
  double reduce(const std::vector<int>& set);
  Tridiagonal reduced() {
    return {.n = rows_, .diagonal = diagonal_.data(), .off = off_.data(), .factor = factor_.data()};
  }
  int count_above(const std::vector<int>& set, double top);
  double top_eigenvalue(const std::vector<int>& set);
  std::vector<int> start();
  bool improve(std::vector<int>& set, double& top);
  void kept_outermost_first(int end);
  int last_tolerable(int first, int last);
  void descend(int first, int left);
  void visit();

  int n_;
  int size_;
  std::vector<double> about_;       ///< n × n products about a central point
  std::vector<int> outermost_;      ///< all points, furthest from the central one first
  std::vector<std::uint8_t> gone_;  ///< deleted at this node
  double threshold_ = 0;            ///< sets whose top eigenvalue reaches it are of no interest
  std::vector<Found> found_;        ///< in lexicographic order, each better than those before
  std::vector<int> set_;
  // Of fill.
  int rows_ = 0;
  std::vector<double> matrix_, sums_;
  std::vector<double> diagonal_, off_, factor_, work_;
};

SmeaSearch::SmeaSearch(const double* gram, int ld, const std::vector<int>& points, int size)
    : n_(static_cast<int>(points.size())), size_(size), gone_(points.size(), 0) {
  const std::size_t n = points.size();
  about_.resize(n * n);
  matrix_.resize(n * n);
  for (std::vector<double>* v : {&sums_, &diagonal_, &off_, &factor_, &work_}) v->resize(n);
  center(gram, ld, points);
}

/// About the point whose size−1 nearest are nearest: wherever the best set lies, it is no further from it
/// than a few of its diameters, so nothing is lost to an offset.
void SmeaSearch::center(const double* gram, int ld, const std::vector<int>& points) {
  const auto product = [&](int i, int j) { return gram[at(points[at(i)]) * at(ld) + at(points[at(j)])]; };
  std::vector<double> row(at(n_));
  int central = 0;
  double least = std::numeric_limits<double>::infinity();
  for (int i = 0; i < n_; ++i) {
    for (int j = 0; j < n_; ++j)
      row[at(j)] = (product(i, i) - product(i, j)) + (product(j, j) - product(i, j));
    std::nth_element(row.begin(), row.begin() + (size_ - 1), row.end());
    if (row[at(size_ - 1)] < least) {
      least = row[at(size_ - 1)];
      central = i;
    }
  }
  for (int i = 0; i < n_; ++i) {
    for (int j = 0; j < n_; ++j) {
      about_[at(i) * at(n_) + at(j)] =
          (product(i, j) + product(central, central)) - (product(i, central) + product(j, central));
    }
  }
  outermost_.resize(at(n_));
  for (int i = 0; i < n_; ++i) outermost_[at(i)] = i;
  std::stable_sort(outermost_.begin(), outermost_.end(),
                   [&](int a, int b) { return distance(a, a) > distance(b, b); });
}

/// matrix_ (rows_ × rows_) = the centred Gram matrix of `set`.
void SmeaSearch::fill(const std::vector<int>& set) {
  rows_ = static_cast<int>(set.size());
  const std::size_t m = set.size();
  double total = 0;
  for (std::size_t i = 0; i < m; ++i) {
    const double* const from = about_.data() + at(set[i]) * at(n_);
    double* const row = matrix_.data() + i * m;
    double sum = 0;
    for (std::size_t j = 0; j < m; ++j) {
      row[j] = from[set[j]];
      sum += row[j];
    }
    sums_[i] = sum / rows_;
    total += sum;
  }
  total /= static_cast<double>(rows_) * rows_;
  for (std::size_t i = 0; i < m; ++i) {
    double* const row = matrix_.data() + i * m;
    for (std::size_t j = 0; j < m; ++j) row[j] = (row[j] + total) - (sums_[i] + sums_[j]);
  }
}

/// Whether the scatter of `set` has an eigenvalue of `top` or more: top·I − M meets a pivot that is not
/// positive.
bool SmeaSearch::reaches(const std::vector<int>& set, double top) {
  fill(set);
  const std::size_t m = set.size();
  double* const a = matrix_.data();
  for (std::size_t i = 0; i < m; ++i) {
    double* const row = a + i * m;
    for (std::size_t j = i; j < m; ++j) row[j] = -row[j];
    row[i] += top;
    if (!(row[i] > 0)) return true;
  }
  for (std::size_t p = 0; p + 1 < m; ++p) {
    const double* const pivot_row = a + p * m;
    const double pivot = pivot_row[p];
    for (std::size_t i = p + 1; i < m; ++i) {
      double* const row = a + i * m;
      const double ratio = pivot_row[i] / pivot;
      for (std::size_t j = i; j < m; ++j) row[j] -= ratio * pivot_row[j];
      if (!(row[i] > 0)) return true;
    }
  }
  return false;
}

/// reduced() = the scatter of `set` over its trace, tridiagonal; returns the trace. 0: all points are one.
double SmeaSearch::reduce(const std::vector<int>& set) {
  fill(set);
  const std::size_t m = set.size();
  double trace = 0;
  for (std::size_t i = 0; i < m; ++i) trace += matrix_[i * m + i];
  if (!(trace > 0)) return 0;
  for (std::size_t i = 0; i < m * m; ++i) matrix_[i] /= trace;
  tridiagonalize(SerialTeam{}, matrix_.data(), rows_, reduced(), work_.data());
  return trace;
}

/// How many eigenvalues of the scatter of `set` are above `top` for certain.
int SmeaSearch::count_above(const std::vector<int>& set, double top) {
  const double trace = reduce(set);
  if (trace == 0) return 0;
  const double error = 16 * 0x1p-53 * rows_;
  return detail::count_above(reduced(), top / trace + error);
}

double SmeaSearch::top_eigenvalue(const std::vector<int>& set) {
  const double trace = reduce(set);
  return trace == 0 ? 0 : eigenvalue(reduced(), 0) * trace;
}

/// Swaps one kept point for another where that gains a tenth of a percent. False: no swap does.
bool SmeaSearch::improve(std::vector<int>& set, double& top) {
  std::vector<std::uint8_t> inside(at(n_), 0);
  for (const int i : set) inside[at(i)] = 1;
  for (std::size_t out = 0; out < set.size(); ++out) {
    for (int in = 0; in < n_; ++in) {
      if (inside[at(in)]) continue;
      std::vector<int> other = set;
      other[out] = in;
      if (reaches(other, top * (1 - 1e-3))) continue;
      top = top_eigenvalue(other);
      set = std::move(other);
      return true;
    }
  }
  return false;
}

/// A good set to begin with: the best of the n balls of `size_` points, then swaps.
std::vector<int> SmeaSearch::start() {
  std::vector<int> best;
  double top = std::numeric_limits<double>::infinity();
  std::vector<int> order(at(n_));
  for (int i = 0; i < n_; ++i) {
    const auto squared = [&](int j) {
      return (distance(i, i) - distance(i, j)) + (distance(j, j) - distance(i, j));
    };
    for (int j = 0; j < n_; ++j) order[at(j)] = j;
    std::nth_element(order.begin(), order.begin() + (size_ - 1), order.end(), [&](int a, int b) {
      const double da = squared(a);
      const double db = squared(b);
      return da < db || (da == db && a < b);
    });
    std::vector<int> ball(order.begin(), order.begin() + size_);
    if (!best.empty() && reaches(ball, top)) continue;
    top = top_eigenvalue(ball);
    best = std::move(ball);
  }
  // Worth its cost where there are more sets than swaps.
  for (int round = 0; round < n_ && n_ - size_ >= 2 && improve(best, top);) ++round;
  return best;
}

/// set_ = the points before `end` that are not deleted, outermost first.
void SmeaSearch::kept_outermost_first(int end) {
  set_.clear();
  for (const int i : outermost_) {
    if (i < end && !gone_[at(i)]) set_.push_back(i);
  }
}

/// The largest next deletion d in [first, last] for which the points kept before it are not yet too spread;
/// first − 1 when there is none.
int SmeaSearch::last_tolerable(int first, int last) {
  int low = first - 1;
  while (low < last) {
    const int middle = low + (last - low + 1) / 2;
    kept_outermost_first(middle);
    if (!set_.empty() && reaches(set_, threshold_)) {
      last = middle - 1;
    } else {
      low = middle;
    }
  }
  return low;
}

void SmeaSearch::visit() {
  kept_outermost_first(n_);
  if (reaches(set_, threshold_)) return;
  found_.push_back({.top = top_eigenvalue(set_), .kept = set_});
  threshold_ = std::min(threshold_, found_.back().top * (1 - improvement));
}

/// Deletes `left` more points, of index `first` or more. Keeping low indices comes first.
void SmeaSearch::descend(int first, int left) {
  if (left == 0) {
    visit();
    return;
  }
  constexpr int worthwhile = 8;  // children for which a bound on all of them pays
  int last = n_ - left;
  if (last - first >= worthwhile) {
    last = last_tolerable(first, last);
    kept_outermost_first(n_);
    if (last < first || count_above(set_, threshold_) > left) return;
  }
  for (int d = last; d >= first; --d) {
    gone_[at(d)] = 1;
    descend(d + 1, left - 1);
    gone_[at(d)] = 0;
  }
}

std::vector<int> SmeaSearch::run() {
  std::vector<int> fallback = start();
  const double top = top_eigenvalue(fallback);
  // Above 0, so that the first of several sets of identical points passes.
  threshold_ = top * (1 + 2 * tie) + std::numeric_limits<double>::min();
  descend(0, n_ - size_);
  found_.push_back({.top = top, .kept = std::move(fallback)});
  double least = top;
  for (const Found& candidate : found_) least = std::min(least, candidate.top);
  const auto first = std::find_if(found_.begin(), found_.end(),
                                  [&](const Found& candidate) { return candidate.top <= least * (1 + tie); });
  return first->kept;
}

/// C(n, f), exact while it is small.
double subsets(int n, int f) {
  double count = 1;
  for (int i = 1; i <= f && count <= smea_subset_limit; ++i) count = count * (n - f + i) / i;
  return count;
}

}  // namespace

double smea_work(int n, int f) { return subsets(n, f) * std::pow(n - f, 3); }

bool smea_is_too_large(int n, int f) {
  if (f == 0) return false;  // one subset: nothing to compare
  return subsets(n, f) > smea_subset_limit || smea_work(n, f) > smea_work_limit;
}

Status solve_smea(const double* gram, int m, int ld, const std::uint8_t* infinite, int f,
                  std::uint8_t* keep) {
  if (smea_is_too_large(m, f)) return Status::too_large;
  std::vector<int> points;
  for (int i = 0; i < m; ++i) {
    keep[i] = 0;
    if (!infinite[i]) points.push_back(i);
  }
  if (static_cast<int>(points.size()) == m - f) {  // no choice
    for (const int i : points) keep[i] = 1;
    return Status::ok;
  }
  for (const int i : SmeaSearch(gram, ld, points, m - f).run()) keep[points[at(i)]] = 1;
  return Status::ok;
}

Status search(const Smea& rule, const Points& points, double*, std::uint8_t* keep) {
  return solve_smea(points.gram, points.count, points.size, points.infinite, rule.f, keep);
}

void need_few_subsets(const Smea& rule, const StagePoints& points) {
  if (!smea_is_too_large(points.n, rule.f)) return;
  throw Error(
      Status::too_large,
      fmt::format(
          "smea: {} with f = {}: more subsets of n−f rows to compare than the limits of {:.0f}, and of "
          "{:.2g} times (n−f)³; lower f, or take nnm(f={}) | trimmed_mean(f={})",
          rows_text(points), rule.f, smea_subset_limit, smea_work_limit, rule.f, rule.f));
}

}  // namespace bragg::detail
