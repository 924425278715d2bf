// SPDX-License-Identifier: Apache-2.0
#include "host/verify/judge.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "rules/needs.hpp"

namespace bragg::verify {

namespace {

using Vector = reference::Vector;

bool is_finite_row(const Vector& row, bool f64) {
  return std::all_of(row.begin(), row.end(),
                     [&](long double x) { return std::isfinite(x) && (!f64 || std::fabs(x) <= 0x1p500L); });
}

/// The coordinates that distances are about.
Vector judged_of(const Vector& row, const std::vector<bool>& judged) {
  if (judged.empty()) return row;
  Vector out;
  for (std::size_t c = 0; c < row.size(); ++c) {
    if (judged[c]) out.push_back(row[c]);
  }
  return out;
}

/// The error of a squared distance from the float64 Gram matrix, D = G_ii + G_jj − 2 G_ij, relative to ‖x_i‖²
/// + ‖x_j‖²: a few units of rounding, growing slowly with the block sums (64 units cover d ≤ 1e6);
/// pre-aggregators add up to n such terms. The oracle's margin is in the same measure.
long double gram_error(int n) { return 64 * 0x1p-53L * static_cast<long double>(n); }

/// The same relative to the squared distances themselves, at worst over the pairs: what clipping factors and
/// weights inherit, being functions of distances. The origin, or the reference, is a point too.
long double coefficient_error(const reference::Input& input) {
  Rows rows = input.rows;
  rows.push_back(input.reference.empty() ? Vector(input.rows[0].size(), 0) : input.reference);
  if (!input.previous.empty()) rows.push_back(input.previous);
  std::vector<bool> finite;
  for (Vector& row : rows) {
    finite.push_back(is_finite_row(row, input.f64));
    row = judged_of(row, input.judged);
  }
  long double worst = 0;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      if (!finite[i] || !finite[j]) continue;
      long double distance = 0;
      long double norms = 0;
      for (std::size_t k = 0; k < rows[i].size(); ++k) {
        distance += (rows[i][k] - rows[j][k]) * (rows[i][k] - rows[j][k]);
        norms += rows[i][k] * rows[i][k] + rows[j][k] * rows[j][k];
      }
      if (distance > 0) worst = std::max(worst, norms / distance);
    }
  }
  return gram_error(static_cast<int>(rows.size())) * worst;
}

long double distance(const Vector& a, const Vector& b) {
  long double squared = 0;
  for (std::size_t j = 0; j < a.size(); ++j) squared += (a[j] - b[j]) * (a[j] - b[j]);
  return std::sqrt(squared);
}

/// The sum of distances that a rule minimises.
struct Sum {
  long double floor = 0;   ///< below it a term is a square
  bool converges = false;  ///< else few of Weiszfeld's steps are taken
  long double tol = 0;

  /// By how much a term grows from distance `from` to `to`, with `squares` the difference of their squares.
  long double growth(long double from, long double to, long double squares) const {
    const long double lengths = std::max(from, floor) + std::max(to, floor);
    if (lengths == 0) return 0;
    const long double inner = std::min(from, to);
    const long double outer = std::max(from, to);
    if (!(floor > 0) || inner > floor || outer <= floor) return squares / lengths;
    const long double all = (outer - floor) + (floor - inner) * (floor + inner) / (2 * floor);
    return from < to ? all : -all;
  }
};

std::optional<Sum> sum_of(const Pipeline& pipeline) {
  if (const auto* const rule = std::get_if<GeometricMedian>(&pipeline.rule)) {
    const bool converges = rule->max_iters >= GeometricMedian::plain_iters && rule->nu <= 0;
    return Sum{.floor = rule->nu, .converges = converges, .tol = rule->tol};
  }
  if (const auto* const rule = std::get_if<Huber>(&pipeline.rule)) {
    const bool converges = rule->max_iters >= GeometricMedian::plain_iters;
    return Sum{.floor = rule->tau, .converges = converges, .tol = rule->tol};
  }
  return std::nullopt;
}

/// Where few of Weiszfeld's steps are taken, the iterates' distances are part of the result. Those to near
/// points are differences of squares as large as the largest point.
long double iterate_error(const Sum& rule, const reference::Result& result, const std::vector<bool>& judged) {
  const Vector out = judged_of(result.out, judged);
  const Vector origin(out.size(), 0);
  long double longest = 0;
  long double nearest = std::numeric_limits<long double>::infinity();
  for (const Vector& point : result.points) {
    longest = std::max(longest, distance(point, origin));
    nearest = std::min(nearest, distance(point, out));
  }
  const long double ratio = longest / std::max(nearest, rule.floor);
  return gram_error(static_cast<int>(result.points.size())) * ratio * ratio;
}

/// By how much fltrust's result may be too short: what is stretched from a length that is taken from above
/// is. A squared length is lengthened where its error is no clear share of it; products are off by at most
/// 2^-40 of the lengths of their rows, and a pre-aggregator takes them about a row that a majority surrounds:
/// no farther than three times the middle row. What is much shorter than the trusted row does not count.
long double shortened_by(const FlTrust& rule, bool mixed, const reference::Input& input,
                         const reference::Result& result) {
  const Vector origin = input.reference.empty() ? Vector(input.rows[0].size(), 0) : input.reference;
  const Vector o = judged_of(origin, input.judged);
  const long double to_origin = distance(o, Vector(o.size(), 0));
  int pivot = rule.pivot;  // among the finite points: pre-aggregators make all of them finite, or none
  for (int i = 0; i < rule.pivot && result.points.size() < input.rows.size(); ++i) {
    pivot -= !is_finite_row(judged_of(input.rows[static_cast<std::size_t>(i)], input.judged), input.f64);
  }
  const long double stretched = distance(result.points[static_cast<std::size_t>(pivot)], o);
  Vector sizes = result.point_sizes;
  const auto middle = sizes.begin() + static_cast<std::ptrdiff_t>(sizes.size() / 2);
  std::nth_element(sizes.begin(), middle, sizes.end());
  const long double about = mixed ? 3 * (*middle + to_origin) : 0;
  long double worst = 0;
  for (std::size_t i = 0; i < result.points.size(); ++i) {
    const long double length = distance(result.points[i], o);
    const long double off = 0x1p-40L * std::pow(result.point_sizes[i] + to_origin + 2 * about, 2);
    if (length > 0x1p-21L * stretched && off > 0x1p-21L * length * length)
      worst = std::max(worst, off / (2 * length * length));
  }
  return worst * stretched;
}

Accuracy accuracy_of(const Pipeline& pipeline, const reference::Input& input,
                     const reference::Result& result) {
  Accuracy accuracy;
  accuracy.mixed = !pipeline.pre.empty();
  accuracy.exact = !accuracy.mixed && (std::holds_alternative<Median>(pipeline.rule) ||
                                       std::holds_alternative<Krum>(pipeline.rule));
  const bool iterates = std::holds_alternative<CenteredClipping>(pipeline.rule) || sum_of(pipeline) ||
                        std::holds_alternative<Caf>(pipeline.rule) ||
                        std::holds_alternative<FlTrust>(pipeline.rule) ||
                        std::holds_alternative<FoolsGold>(pipeline.rule);
  if (!accuracy.mixed && !iterates) return accuracy;
  // Clipping factors are square roots of Gram distances; they inherit half of their relative error.
  const long double coefficients = coefficient_error(input);
  accuracy.relative = coefficients;
  // Of an iterate, a row within the rounding error of a squared distance, (16·2⁻⁵²)^½ ‖x‖ = 6e-8 ‖x‖, counts
  // as reached; sums over coordinates make it less, not more.
  if (const std::optional<Sum> sum = sum_of(pipeline); sum && !sum->converges) {
    accuracy.relative = 2e-7L + coefficients + iterate_error(*sum, result, input.judged);
  }
  if (const auto* const rule = std::get_if<FlTrust>(&pipeline.rule)) {
    accuracy.shortened = shortened_by(*rule, accuracy.mixed, input, result);
  }
  if (std::holds_alternative<Caf>(pipeline.rule)) accuracy.relative = 1e-8L + 1e3L * coefficients;
  return accuracy;
}

/// Per coordinate; empty where distances are about all, or there are none.
std::vector<bool> judged_coordinates(const Pipeline& pipeline, const Request& request) {
  std::vector<bool> judged;
  if (request.judged.empty() || !detail::needs_of(pipeline).judge_rows()) return judged;
  const auto d = static_cast<std::int64_t>(request.rows[0].size());
  const std::vector<std::int64_t> sizes = tensor_sizes(request.layout, d);
  for (std::size_t t = 0; t < sizes.size(); ++t)
    judged.insert(judged.end(), static_cast<std::size_t>(sizes[t]), request.judged[t]);
  return judged;
}

reference::Input oracle_input(const Pipeline& pipeline, const Request& request) {
  reference::Input input;
  input.rows = as_stored(request.rows, request.dtype);
  input.f64 = request.dtype == DType::f64;
  if (!request.reference.empty()) input.reference = as_stored({request.reference}, request.dtype)[0];
  input.weights = request.weights;
  input.max_weight_share = request.options.max_weight_share;
  input.judged = judged_coordinates(pipeline, request);
  return input;
}

Vector slice(const Vector& row, std::int64_t first, std::int64_t size) {
  return {row.begin() + first, row.begin() + first + size};
}

/// The input's tensor of `size` coordinates from `first` on.
reference::Input slice(const reference::Input& input, std::int64_t first, std::int64_t size) {
  reference::Input part = input;
  for (Vector& row : part.rows) row = slice(row, first, size);
  if (!part.reference.empty()) part.reference = slice(part.reference, first, size);
  return part;
}

/// The dtype that mixed points are rounded to before they are ordered.
DType dtype_of_mixed(DType in) { return in == DType::f64 ? DType::f64 : DType::f32; }

Expectation::Part expect_part(const Pipeline& pipeline, const Request& request, const reference::Input& input,
                              std::int64_t first) {
  Expectation::Part part{.first = first, .result = reference::aggregate(pipeline, input)};
  const int n = static_cast<int>(input.rows.size());
  part.clear = part.result.margin > gram_error(n);
  if (part.result.status != Status::ok) return part;
  // Mixed points are rounded to f32 (f64) before they are compared per coordinate: relatively most for
  // denormals.
  long double rounding = 0;
  for (const long double size : part.result.magnitude) {
    if (size > 0) rounding = std::max(rounding, 4 * spacing(dtype_of_mixed(request.dtype), size) / size);
  }
  const bool mixed = !pipeline.pre.empty();
  part.clear = part.result.margin > gram_error(n) + (mixed ? rounding : 0);
  if (part.clear) part.accuracy = accuracy_of(pipeline, input, part.result);
  return part;
}

/// A sum of distances run to convergence is right when its objective Σ p_i ‖x_i − v‖ is no more above the
/// oracle's than the rule's tolerance allows, what the oracle may be off, the rounding of the output, and
/// what distances do not tell: one of error e that is r long is off by e/r, and rows nearer than 4 √e may
/// count as one. (A point's error is as large as its rows are, also where they cancel in it; wherever it
/// lies, the objective changes by no more than v moves.) The difference is added up row by row, so that huge
/// rows swallow nothing; the scale is half of the weight times the distance within which more than half of it
/// is. (Below a floor slopes are less than 1, by the distance's share of it.) `share`: see Verdict::worst.
bool is_minimiser(const Sum& rule, DType out, const Accuracy& accuracy, const reference::Result& expected,
                  const Vector& got, long double& share) {
  long double rounding = 0;
  long double shift = 0;  // of the points, where their coefficients are rounded
  for (std::size_t j = 0; j < got.size(); ++j) {
    const long double sum =
        static_cast<long double>(expected.points.size()) * accuracy.sum * expected.magnitude[j];
    rounding += std::pow(spacing(out, expected.out[j]) + sum, 2);
    shift += std::pow(accuracy.mixed ? accuracy.relative * expected.magnitude[j] : 0, 2);
  }
  rounding = std::sqrt(rounding);
  shift = 2 * std::sqrt(shift);
  const Vector origin(got.size(), 0);
  const long double to_origin = distance(expected.out, origin);
  const long double moved = distance(expected.out, got);
  std::vector<std::pair<long double, long double>> sorted;
  long double excess = 0;
  long double total = 0;
  long double hidden = 0;
  for (std::size_t i = 0; i < expected.points.size(); ++i) {
    const Vector& x = expected.points[i];
    const long double p = expected.point_weights[i];
    const long double to_expected = distance(x, expected.out);
    const long double to_got = distance(x, got);
    long double product = 0;  // ‖x − got‖² − ‖x − expected‖²
    for (std::size_t j = 0; j < got.size(); ++j) {
      product += (expected.out[j] - got[j]) * ((x[j] - expected.out[j]) + (x[j] - got[j]));
    }
    sorted.emplace_back(to_expected, p);
    total += p;
    excess += p * rule.growth(to_expected, to_got, product);
    const long double error = gram_error(static_cast<int>(expected.points.size())) *
                              std::pow(expected.point_sizes[i] + to_origin, 2);
    for (const long double r : {to_expected, to_got}) {
      const long double length = std::max(r, rule.floor);
      const long double off = length > 0 ? error / length : std::numeric_limits<long double>::infinity();
      hidden += p * std::min({8 * std::sqrt(error), off, moved});
    }
    // A floor that lengths of so many digits do not tell from 0 counts as what they do.
    const long double unseen = 0x1p-22L * 4 * (expected.point_sizes[i] + to_origin + to_expected);
    if (rule.floor > 0 && rule.floor < unseen && std::min(to_expected, to_got) < unseen) hidden += p * unseen;
  }
  std::sort(sorted.begin(), sorted.end());
  long double within = 0;
  long double middle = 0;
  for (const auto& [length, p] : sorted) {
    within += p;
    middle = length;
    if (2 * within > total * (1 + 1e-12L)) break;
  }
  const long double tol = std::max<long double>(rule.tol, 1e-13L);
  // Where rows beyond the floor pull, the rounding of their pulls is a share of it.
  middle = std::max(middle, 0x1p-20L * rule.floor);
  const long double term = rule.growth(0, middle, middle * middle);
  const long double allowed = tol * total / 2 * term + expected.gap + hidden + total * shift;
  // At the minimum there is no slope, and near it little where terms are squares.
  const long double steep = rule.floor > 0 ? std::min(1.0L, (moved + rounding) / rule.floor) : 1;
  const long double rounded = total * rounding * steep;
  share = std::max(0.0L, excess - rounded) / std::max(allowed, std::numeric_limits<long double>::min());
  return excess <= allowed + rounded;
}

/// The fault of `got`, or null. Non-finite values must agree exactly. `share`: see Verdict::worst.
const char* compare(long double got, long double expected, DType out, const Accuracy& accuracy,
                    const Bound& bound, long double& share) {
  share = 0;
  if (std::isnan(expected) != std::isnan(got)) return "NaN";
  if (std::isnan(expected)) return nullptr;
  if (got == 0 && std::signbit(got)) return "negative zero";
  if (got == round_to(out, expected)) return nullptr;
  if (std::isinf(expected) || std::isinf(got)) return "infinity";
  if (accuracy.exact) return "not bit-equal";
  const long double off = std::fabs(got - expected);
  if (bound.computing > 0) share = std::max((off - bound.rounding) / bound.computing, 0.0L);
  return off <= bound.total() ? nullptr : "error";
}

/// The coordinate that is farthest off, of those that distances are about or that are not finite.
Breach farthest_off(const char* what, const Expectation::Part& part, const std::vector<bool>& judged,
                    const Vector& all) {
  std::size_t worst = 0;
  long double most = -1;
  for (std::size_t c = 0; c < all.size(); ++c) {
    const bool counts = judged.empty() || judged[c] || !std::isfinite(all[c]);
    const long double off = std::isfinite(all[c]) ? std::fabs(all[c] - part.result.out[c])
                                                  : std::numeric_limits<long double>::infinity();
    if (!counts || off <= most) continue;
    worst = c;
    most = off;
  }
  return {what, part.first + static_cast<std::int64_t>(worst), all[worst], part.result.out[worst], 0};
}

/// Of a sum of distances run to convergence. Where distances are not about all coordinates, it is to be the
/// minimiser in those alone.
void judge_minimiser(const Sum& rule, DType out, const Expectation::Part& part, const Accuracy& accuracy,
                     const std::vector<bool>& judged, const Outcome& got, Verdict& verdict) {
  reference::Result expected = part.result;
  const Vector all = slice(got.out, part.first, static_cast<std::int64_t>(expected.out.size()));
  expected.out = judged_of(expected.out, judged);
  expected.magnitude = judged_of(expected.magnitude, judged);
  const Vector value = judged_of(all, judged);
  long double share = 0;
  const bool finite = std::all_of(all.begin(), all.end(), [](long double x) { return std::isfinite(x); });
  const bool right = finite && is_minimiser(rule, out, accuracy, expected, value, share);
  verdict.worst = std::max(verdict.worst, share);
  if (right || verdict.breach) return;
  verdict.breach = farthest_off("not the minimiser", part, judged, all);
}

/// Of AutoGM: no farther from where the oracle ends than another way may end, but for the rounding of each
/// coordinate.
void judge_limit(DType in, DType out, const Expectation::Part& part, const Accuracy& accuracy,
                 const std::vector<bool>& judged, const Outcome& got, Verdict& verdict) {
  const reference::Result& expected = part.result;
  const Vector all = slice(got.out, part.first, static_cast<std::int64_t>(expected.out.size()));
  long double squared = 0;
  bool finite = true;
  for (std::size_t c = 0; c < all.size(); ++c) {
    finite = finite && std::isfinite(all[c]);
    if (!judged.empty() && !judged[c]) continue;
    const Bound bound = bound_of(in, out, accuracy, static_cast<int>(expected.points.size()), expected.out[c],
                                 expected.magnitude[c]);
    const long double off = std::fabs(all[c] - expected.out[c]) - bound.total();
    squared += off > 0 ? off * off : 0;
  }
  const long double off = std::sqrt(squared);
  if (off > 0) verdict.worst = std::max(verdict.worst, expected.reach > 0 ? off / expected.reach : 1e9L);
  if (finite && off <= expected.reach) return;
  if (!verdict.breach) verdict.breach = farthest_off("not the limit", part, judged, all);
}

/// The coordinates that distances are not about, of a rule whose coefficients the oracle does not foretell:
/// they follow from those in the report.
void judge_unjudged(const Request& request, const std::vector<bool>& judged, const Accuracy& accuracy,
                    const Outcome& got, Verdict& verdict) {
  // A reference's coefficient is in no report.
  if (judged.empty() || !request.reference.empty() || got.reports.empty()) return;
  const Rows rows = as_stored(request.rows, request.dtype);
  const DType out = out_dtype(request);
  for (std::size_t c = 0; c < judged.size() && !verdict.breach; ++c) {
    if (judged[c]) continue;
    long double expected = 0;
    long double magnitude = 0;
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const long double weight = got.reports[0].rows[i].weight;
      if (weight == 0) continue;
      expected += weight * rows[i][c];
      magnitude += std::fabs(weight * rows[i][c]);
    }
    const Bound bound =
        bound_of(request.dtype, out, accuracy, static_cast<int>(rows.size()), expected, magnitude);
    long double share = 0;
    const char* const wrong = compare(got.out[c], expected, out, accuracy, bound, share);
    verdict.worst = std::max(verdict.worst, share);
    if (wrong != nullptr)
      verdict.breach = {wrong, static_cast<std::int64_t>(c), got.out[c], expected, bound.total()};
  }
}

void judge_part(const Pipeline& pipeline, const Request& request, const Expectation::Part& part,
                const Outcome& got, Verdict& verdict) {
  const DType out = out_dtype(request);
  const reference::Result& expected = part.result;
  const auto d = static_cast<std::int64_t>(expected.out.size());
  Accuracy accuracy = part.accuracy;
  accuracy.sum = got.sum_error;
  if (const std::optional<Sum> sum = sum_of(pipeline); sum && sum->converges) {
    const std::vector<bool> judged = judged_coordinates(pipeline, request);
    judge_minimiser(*sum, out, part, accuracy, judged, got, verdict);
    judge_unjudged(request, judged, accuracy, got, verdict);
    return;
  }
  if (std::holds_alternative<AutoGm>(pipeline.rule)) {
    const std::vector<bool> judged = judged_coordinates(pipeline, request);
    judge_limit(request.dtype, out, part, accuracy, judged, got, verdict);
    judge_unjudged(request, judged, accuracy, got, verdict);
    return;
  }
  const int n = static_cast<int>(request.rows.size());
  for (std::int64_t j = 0; j < d; ++j) {
    const auto k = static_cast<std::size_t>(j);
    const long double value = got.out[static_cast<std::size_t>(part.first) + k];
    const Bound bound = bound_of(request.dtype, out, accuracy, n, expected.out[k], expected.magnitude[k]);
    long double share = 0;
    const char* const wrong = compare(value, expected.out[k], out, accuracy, bound, share);
    verdict.worst = std::max(verdict.worst, share);
    if (wrong != nullptr && !verdict.breach) {
      verdict.breach = {wrong, part.first + j, value, expected.out[k], bound.total()};
    }
  }
}

/// Compares the output of a failed run with on_failure.
std::optional<Breach> judge_failure(OnFailure on_failure, const Outcome& got) {
  const auto everywhere = [](const auto& values, auto holds) {
    return std::all_of(values.begin(), values.end(), holds);
  };
  switch (on_failure) {
    case OnFailure::keep:
      if (everywhere(got.bytes, [](unsigned char byte) { return byte == GuardedBuffer::pattern; })) return {};
      return Breach{.what = "the output was written to by a run that failed"};
    case OnFailure::zero:
      if (everywhere(got.bytes, [](unsigned char byte) { return byte == 0; })) return {};
      return Breach{.what = "the output of a run that failed is not zero"};
    default:
      if (everywhere(got.out, [](long double x) { return std::isnan(x); })) return {};
      return Breach{.what = "the output of a run that failed is not NaN"};
  }
}

}  // namespace

Bound bound_of(DType in, DType out, const Accuracy& accuracy, int n, long double expected,
               long double magnitude) {
  if (accuracy.exact) return {};
  // Below 2⁻¹⁰²² the error of a step shrinks no further.
  long double error = (n + 8) * std::max(accuracy.sum * magnitude, 0x1p-1075L);
  if (accuracy.mixed) error += spacing(dtype_of_mixed(in), magnitude) / 2;
  error += accuracy.relative * magnitude + accuracy.shortened;
  // Half a unit of the final rounding, and the unit may double just above |expected|.
  return {error * 1.01L, 0.5001L * spacing(out, std::fabs(expected) + error)};
}

Expectation expect(const Pipeline& pipeline, const Request& request) {
  const reference::Input input = oracle_input(pipeline, request);
  Expectation expected;
  if (request.options.scope == Scope::whole) {
    expected.parts.push_back(expect_part(pipeline, request, input, 0));
  } else {
    std::int64_t first = 0;
    for (const std::int64_t size :
         tensor_sizes(request.layout, static_cast<std::int64_t>(input.rows[0].size()))) {
      expected.parts.push_back(expect_part(pipeline, request, slice(input, first, size), first));
      first += size;
    }
  }
  for (const Expectation::Part& part : expected.parts) {
    if (expected.status == Status::ok) expected.status = part.result.status;
  }
  return expected;
}

std::string Verdict::complaint() const {
  if (!breach) return "";
  if (breach->coordinate < 0) return breach->what;
  const long double off = std::fabs(breach->got - breach->expected);
  std::string text = fmt::format("coordinate {}: {}: got {:.17g}, expected {:.17g}", breach->coordinate,
                                 breach->what, breach->got, breach->expected);
  if (breach->bound > 0 && std::isfinite(off)) {
    text += fmt::format(", off by {:.3g} × the bound", off / breach->bound);
  }
  return text;
}

Verdict judge(const Pipeline& pipeline, const Request& request, const Expectation& expected,
              const Outcome& got) {
  Verdict verdict;
  verdict.judged = expected.status != Status::ok;
  // Whether rows all point alike is decided by distances, as opposed to what else ends a run.
  const bool by_distances = got.status == Status::no_majority || expected.status == Status::no_majority;
  const bool clear = std::all_of(expected.parts.begin(), expected.parts.end(),
                                 [](const Expectation::Part& part) { return part.clear; });
  if (by_distances && !clear) {
    verdict.judged = false;
  } else if (got.status != expected.status) {
    verdict.judged = true;
    verdict.breach = Breach{
        .what = fmt::format("status {}, oracle {}", to_string(got.status), to_string(expected.status))};
  } else if (got.status != Status::ok) {
    verdict.breach = judge_failure(request.options.on_failure, got);
  } else {
    for (const Expectation::Part& part : expected.parts) {
      if (!part.clear) continue;
      verdict.judged = true;
      judge_part(pipeline, request, part, got, verdict);
    }
  }
  if (!got.trespass.empty() && !verdict.breach) verdict.breach = Breach{.what = got.trespass};
  return verdict;
}

bool has_one_right_answer(const Pipeline& pipeline, const Request& request, const Expectation& expected) {
  if (!pipeline.pre.empty() || expected.status != Status::ok) return false;
  if (std::holds_alternative<Median>(pipeline.rule) && request.weights.empty()) return true;
  const bool clear = std::all_of(expected.parts.begin(), expected.parts.end(),
                                 [](const Expectation::Part& part) { return part.clear; });
  return clear &&
         (std::holds_alternative<Median>(pipeline.rule) || std::holds_alternative<Krum>(pipeline.rule));
}

}  // namespace bragg::verify
