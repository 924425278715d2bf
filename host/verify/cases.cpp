// SPDX-License-Identifier: Apache-2.0
#include "host/verify/cases.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <random>
#include <set>

#include "host/verify/draw.hpp"
#include "rules/needs.hpp"
#include "rules/table.hpp"

namespace bragg::verify {

namespace {

/// A hash that is the same everywhere: FNV-1a.
std::uint64_t hash(std::string_view text) {
  std::uint64_t value = 0xcbf29ce484222325U;
  for (const char c : text) value = (value ^ static_cast<unsigned char>(c)) * 0x100000001b3U;
  return value;
}

// Shapes ----------------------------------------------------------------------------------------------------

/// Around the sizes at which the passes change their ways: networks, tiles, vectors, blocks.
int draw_n(Random& random) {
  constexpr std::array large = {48, 63, 64, 65, 96, 100, 128, 129, 200};
  return one_in(random, 6) ? any_of(random, large) : 1 + below(random, 40);
}

std::int64_t draw_d(Random& random, int n, std::int64_t work) {
  constexpr std::array<std::int64_t, 26> sizes = {0,   1,   2,    3,    4,    7,    8,    15,   16,
                                                  17,  31,  33,   64,   77,   128,  255,  257,  511,
                                                  512, 777, 1000, 1025, 2049, 4097, 8193, 12345};
  const auto end = std::upper_bound(sizes.begin(), sizes.end(), work / n / n);
  // One time in three, one of the five largest.
  const auto count = static_cast<std::size_t>(end - sizes.begin());
  return one_in(random, 3) ? sizes[count - 1 - random() % std::min<std::size_t>(count, 5)]
                           : sizes[random() % count];
}

bool is_affordable(const Pipeline& pipeline, int n) {
  if (is_combinatorial(pipeline)) return n <= 11;
  if (std::holds_alternative<Caf>(pipeline.rule)) return n <= 24;
  return true;
}

// Data ------------------------------------------------------------------------------------------------------

/// Sizes that a dtype holds, from its denormals to near its largest.
struct Scales {
  double large;
  double small;
  double denormal;
  double huge;  ///< of bad rows
};

Scales scales_of(DType dtype) {
  switch (dtype) {
    case DType::f16:
      return {1e3, 1e-3, 1e-6, 6e4};
    case DType::bf16:
      return {1e20, 1e-30, 1e-39, 3e38};
    case DType::f32:
      return {1e20, 1e-30, 1e-42, 3e38};
    case DType::f64:
      break;
  }
  return {1e140, 1e-100, 1e-310, 3e149};
}

struct Honest {
  const char* name;
  Rows rows;
  double scale;
};

Honest draw_honest(Random& random, DType dtype, int n, std::int64_t d) {
  const Scales scales = scales_of(dtype);
  const auto scaled = [&](const char* name, double scale) {
    return Honest{name, normal_rows(random, n, d, 0.5 * scale, scale), scale};
  };
  switch (random() % 12) {
    case 0:
      return {"offset of 1000", normal_rows(random, n, d, 1000, 1), 1};
    case 1: {
      Honest made{"small integers", normal_rows(random, n, d, 0, 1.5), 1};
      for (auto& row : made.rows) {
        for (auto& value : row) value = std::nearbyint(value);
      }
      return made;
    }
    case 2: {
      Honest made{"two clusters", normal_rows(random, n, d, 0, 1), 1};
      for (std::size_t i = 0; i < made.rows.size(); i += 2) {
        for (auto& value : made.rows[i]) value += 100;
      }
      return made;
    }
    case 3:
      return scaled("large values", scales.large);
    case 4:
      return scaled("small values", scales.small);
    case 5:
      return scaled("denormals", scales.denormal);
    case 6:
      return {"identical rows", Rows(static_cast<std::size_t>(n), normal_rows(random, 1, d, 0.5, 1)[0]), 1};
    default:
      return scaled("normal values", 1);
  }
}

struct Attack {
  const char* name;
  void (*fill)(Values& row, const Scales& scales, Random& random);
};

template <class ValueF>
void fill(Values& row, ValueF value) {
  for (std::size_t j = 0; j < row.size(); ++j) row[j] = value(j);
}

constexpr long double inf = std::numeric_limits<long double>::infinity();
constexpr long double nan = std::numeric_limits<long double>::quiet_NaN();

/// The contents of bad rows, each made from an honest row. Those that are not finite come first.
constexpr std::size_t nonfinite_attacks = 6;
constexpr std::array<Attack, 13> attacks = {{
    {"NaN", [](Values& row, const Scales&, Random&) { fill(row, [](std::size_t) { return nan; }); }},
    {"NaN with the sign bit",
     [](Values& row, const Scales&, Random&) { fill(row, [](std::size_t) { return -nan; }); }},
    {"infinity", [](Values& row, const Scales&, Random&) { fill(row, [](std::size_t) { return inf; }); }},
    {"minus infinity",
     [](Values& row, const Scales&, Random&) { fill(row, [](std::size_t) { return -inf; }); }},
    {"one NaN",
     [](Values& row, const Scales&, Random& random) {
       if (!row.empty()) row[random() % row.size()] = nan;
     }},
    {"one infinity",
     [](Values& row, const Scales&, Random& random) {
       if (!row.empty()) row[random() % row.size()] = -inf;
     }},
    {"huge values",
     [](Values& row, const Scales& s, Random&) { fill(row, [&](std::size_t) { return s.huge; }); }},
    {"huge values of either sign",
     [](Values& row, const Scales& s, Random&) {
       fill(row, [&](std::size_t j) { return j % 2 == 0 ? s.huge : -s.huge; });
     }},
    {"denormals",
     [](Values& row, const Scales& s, Random&) { fill(row, [&](std::size_t) { return s.denormal; }); }},
    {"zeros of either sign",
     [](Values& row, const Scales&, Random&) {
       fill(row, [](std::size_t j) { return j % 2 == 0 ? 0.0L : -0.0L; });
     }},
    {"honest values reversed and tenfold",
     [](Values& row, const Scales&, Random&) { fill(row, [&](std::size_t j) { return -10 * row[j]; }); }},
    {"honest values a hundredfold",
     [](Values& row, const Scales&, Random&) { fill(row, [&](std::size_t j) { return 100 * row[j]; }); }},
    {"any bits, or honest values",
     [](Values& row, const Scales& s, Random& random) {
       const std::array<long double, 9> values = {nan,   -nan,   inf,     -inf,      0,
                                                  -0.0L, s.huge, -s.huge, s.denormal};
       for (auto& value : row) value = one_in(random, 10) ? value : any_of(random, values);
     }},
}};

std::set<int> draw_places(Random& random, int n, int count) {
  std::set<int> places;
  while (static_cast<int>(places.size()) < count) places.insert(below(random, static_cast<std::size_t>(n)));
  return places;
}

/// Where bad rows are put. Rules are right about finite rows only as far as those are a minority: so at most
/// f, or, seldom, too many that are not finite.
std::set<int> draw_bad_rows(Random& random, Case& drawn, double honest_scale) {
  Request& request = drawn.request;
  const int n = static_cast<int>(request.rows.size());
  const bool too_many = one_in(random, 16);
  const int most = too_many ? n : std::min(drawn.f, (points_at_rule(drawn.pipeline, n) - 1) / 2);
  if (most == 0 || one_in(random, 2)) return {};
  const int count = 1 + below(random, static_cast<std::size_t>(most));
  const Attack& attack = attacks[random() % (too_many ? nonfinite_attacks : attacks.size())];
  std::set<int> places = draw_places(random, n, count);
  Scales scales = scales_of(request.dtype);
  // Beside f64 rows more than 2⁹⁴⁰ times larger, rows count as zero in distances: see docs/numerics.md.
  scales.huge = std::min(scales.huge, honest_scale * 0x1p900);
  for (const int i : places) attack.fill(request.rows[static_cast<std::size_t>(i)], scales, random);
  drawn.data += fmt::format(", {} bad: {}", count, attack.name);
  return places;
}

/// Positive weights, of bad rows the least; now and then a row without, and one whose weight is no number.
void draw_weights(Random& random, Case& drawn, const std::set<int>& bad) {
  Request& request = drawn.request;
  const std::size_t n = request.rows.size();
  const std::array<double, 6> choices = {1, 2, 3, 0.1, 10, 1e-3};
  for (std::size_t i = 0; i < n; ++i) request.weights.push_back(any_of(random, choices));
  const double least = *std::min_element(request.weights.begin(), request.weights.end());
  for (const int i : bad) request.weights[static_cast<std::size_t>(i)] = least;
  drawn.data += ", weights";
  if (one_in(random, 3)) {
    const auto left_out = static_cast<std::size_t>(1 + below(random, n));  // row 0 is monna's pivot
    if (left_out < n && legal_pipeline(drawn.text, static_cast<int>(n) - 1, drawn.f) == drawn.pipeline) {
      request.weights[left_out] = 0;
      drawn.data += " with a 0";
    }
  }
  if (one_in(random, 4) && n >= 3) {
    request.weights[random() % n] = one_in(random, 2) ? -1.0 : std::nan("");
    drawn.data += " with a bad one";
  }
  if (one_in(random, 4) && n >= 5) {
    request.options.max_weight_share = 2.0 / static_cast<double>(n - 2);
    drawn.data += ", capped";
  }
}

void draw_reference(Random& random, Case& drawn, double scale) {
  const auto d = static_cast<std::int64_t>(drawn.request.rows[0].size());
  Values& reference = drawn.request.reference;
  reference = normal_rows(random, 1, d, 0.3 * scale, 0.5 * scale)[0];
  drawn.data += ", a reference";
  if (d == 0 || !one_in(random, 40)) return;
  reference[random() % reference.size()] = nan;
  drawn.data += " with a NaN";
}

/// n, f and the pipeline, which must stand them.
int draw_pipeline(Random& random, Case& drawn) {
  for (;;) {
    const int n = draw_n(random);
    drawn.f = draw_f(random, n);
    const std::optional<Pipeline> found = legal_pipeline(drawn.text, n, drawn.f);
    if (!found || !is_affordable(*found, n)) continue;
    drawn.pipeline = *found;
    return n;
  }
}

}  // namespace

Random generator(std::string_view text, DType dtype, std::uint64_t seed) {
  const std::uint64_t name = hash(text);
  std::seed_seq words{static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32),
                      static_cast<std::uint32_t>(name), static_cast<std::uint32_t>(name >> 32),
                      static_cast<std::uint32_t>(dtype)};
  return Random(words);
}

int draw_f(Random& random, int n) {
  const int most = (n - 1) / 2;
  const std::array<int, 4> choices = {0, std::min(1, most), most, std::max(0, (n - 3) / 4)};
  return one_in(random, 2) ? any_of(random, choices) : below(random, static_cast<std::size_t>(most) + 1);
}

Rows normal_rows(Random& random, int n, std::int64_t d, double mean, double deviation) {
  std::normal_distribution<double> normal;
  Rows rows(static_cast<std::size_t>(n), std::vector<long double>(static_cast<std::size_t>(d)));
  for (auto& row : rows) {
    for (auto& value : row) value = mean + deviation * static_cast<long double>(normal(random));
  }
  return rows;
}

std::span<const char* const> pipelines() {
  static const std::vector<const char*> texts = [] {
    std::vector<const char*> all;
    for (const RuleInfo& rule : rules()) all.insert(all.end(), rule.examples.begin(), rule.examples.end());
    return all;
  }();
  return texts;
}

std::vector<std::string> rules_in(std::string_view pipeline) {
  std::vector<std::string> names;
  while (!pipeline.empty()) {
    const std::string_view stage = pipeline.substr(0, pipeline.find('|'));
    pipeline.remove_prefix(std::min(stage.size() + 1, pipeline.size()));
    const std::size_t begin = stage.find_first_not_of(' ');
    if (begin == std::string_view::npos) continue;
    names.emplace_back(stage.substr(begin, stage.find_first_of(" (", begin) - begin));
  }
  return names;
}

std::optional<Pipeline> legal_pipeline(const char* text, int n, int f) {
  std::string filled = text;
  const auto replace = [&](const std::string& from, const std::string& to) {
    for (std::size_t at = filled.find(from); at != std::string::npos; at = filled.find(from))
      filled.replace(at, from.size(), to);
  };
  replace("N1", std::to_string(n - f - 1));
  replace("=F", "=" + std::to_string(f));
  try {
    Pipeline pipeline = parse(filled);
    validate(pipeline, n);
    return pipeline;
  } catch (const Error&) {
    return std::nullopt;
  }
}

bool is_combinatorial(const Pipeline& pipeline) { return detail::searches_on_host(pipeline); }

Case draw_case(const char* text, DType dtype, std::uint64_t seed, std::int64_t work) {
  Random random = generator(text, dtype, seed);
  Case drawn{.text = text, .seed = seed};
  Request& request = drawn.request;
  const int n = draw_pipeline(random, drawn);
  const std::int64_t d = draw_d(random, n, work);
  Honest honest = draw_honest(random, dtype, n, d);
  drawn.data = honest.name;
  request.rows = as_stored(honest.rows, dtype);
  request.dtype = dtype;
  request.layout = static_cast<Layout>(random() % 4);
  request.misalignment = one_in(random, 2) ? random() % 16 : 0;
  request.options.threads = 1 + below(random, 3);
  request.options.on_failure = static_cast<OnFailure>(random() % 3);
  const std::set<int> bad = draw_bad_rows(random, drawn, honest.scale);
  if (one_in(random, 2)) draw_reference(random, drawn, honest.scale);
  if (one_in(random, 3) && detail::takes_weights(drawn.pipeline)) draw_weights(random, drawn, bad);
  if (request.layout == Layout::tensors && one_in(random, 2)) request.options.scope = Scope::per_tensor;
  if (size_of(dtype) == 2 && one_in(random, 4)) request.options.out_dtype = DType::f32;
  if (request.layout == Layout::tensors && request.options.scope == Scope::whole && one_in(random, 2)) {
    request.judged = draw_judged(random, d);
    drawn.data += ", judged by";
    const std::vector<std::int64_t> sizes = tensor_sizes(request.layout, d);
    for (std::size_t t = 0; t < sizes.size(); ++t) {
      if (request.judged[t]) drawn.data += fmt::format(" {}", sizes[t]);
    }
    drawn.data += " coordinates";
  }
  return drawn;
}

std::vector<bool> draw_judged(std::mt19937_64& random, std::int64_t d) {
  std::vector<bool> judged;
  for (std::size_t t = 0; t < tensor_sizes(Layout::tensors, d).size(); ++t)
    judged.push_back(random() % 2 == 0);
  if (std::find(judged.begin(), judged.end(), true) == judged.end()) judged[random() % judged.size()] = true;
  return judged;
}

std::string describe(const Case& drawn) {
  const Request& request = drawn.request;
  const bool per_tensor = request.options.scope == Scope::per_tensor;
  std::string text = fmt::format(
      "{}, n = {}, d = {}, {}{}, {}{}, {}", to_string(drawn.pipeline), request.rows.size(),
      request.rows[0].size(), to_string(request.dtype),
      request.options.out_dtype ? fmt::format(" to {}", to_string(*request.options.out_dtype)) : "",
      name_of(request.layout), per_tensor ? " each by itself" : "", drawn.data);
  if (request.misalignment != 0) text += fmt::format(", {} bytes off", request.misalignment);
  return text;
}

}  // namespace bragg::verify
