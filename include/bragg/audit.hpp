// SPDX-License-Identifier: Apache-2.0
// What a defence costs on given updates, what it withstands, and which rows look bad.
#pragma once

#include <bragg/error.hpp>
#include <bragg/updates.hpp>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

namespace bragg {
inline namespace v0 {

struct AuditOptions {
  /// With F for f; none: `default_audit_rules`. None may trust a row (`pivot`) or sample fewer than d.
  std::vector<std::string> rules = {};
  /// The number of bad rows that is advised on; none: as many as look bad, but at least 1.
  std::optional<int> f = {};
  /// Coordinates that coordinate-wise rules are tried on: one drawn from each of so many equal stretches of
  /// the row. 0: all. Their values are held in memory, in double.
  std::int64_t sample = std::int64_t{1} << 16;
  /// Draws the sample, and whom attackers replace.
  std::uint64_t seed = 0;
  /// The o that rows are looked at from, of the updates' dtypes and tensor sizes: the global model where rows
  /// are models. Empty: the origin, for rows that are differences from it.
  Row base = {};
};

/// The pipelines that an audit tries where it is told none.
BRAGG_API std::vector<std::string> default_audit_rules();

/// Why a row looks bad.
enum class Evidence : std::uint8_t {
  bad_input,  ///< the file is none of the agreed form
  nonfinite,  ///< NaN or infinity
  huge,       ///< values beyond 2^480
  norm,       ///< far longer than rows are, or far shorter
  distance,   ///< far from most rows, beside what rows are from each other
  copy,       ///< next to none from another row
  direction,  ///< points against the median of the others, as most do not
};

/// "bad input", "non-finite", …
BRAGG_API const char* to_string(Evidence evidence) noexcept;

struct AuditFinding {
  Evidence evidence = Evidence::nonfinite;
  std::string text;         ///< with the figures
  std::vector<int> rows{};  ///< Evidence::copy: of which others, at most five
};

struct AuditRow {
  std::vector<AuditFinding> findings;  ///< none: the row is taken for honest
  std::int64_t nonfinite = 0;          ///< values that are NaN or infinite
  // About o; NaN for rows that are bad inputs, not finite or huge.
  double norm = 0;
  double distance = 0;  ///< to the nearest half of the others, at the most
  double cosine = 0;    ///< with the geometric median of the others
};

/// A rule at one f, on m honest rows of n. Squared distances are shares of the spread: ‖out − μ‖² / ((1/|H|)
/// Σ_H ‖x_i − μ‖²), with μ the mean of the honest rows H. NaN: the rule does not take so many bad rows among
/// so few, or has no result within its limits.
struct AuditPoint {
  int f = 0;
  /// The price of paranoia: on the honest rows alone.
  double price = std::numeric_limits<double>::quiet_NaN();
  double price_error = 0;  ///< of the sample: a standard error
  /// f/(m−f): for no rule can a smaller price be promised that holds for all rows.
  double bound = 0;
  /// The worst of the attacks, f rows of `rows` being hostile. Where f is above the number of rows that look
  /// bad, honest ones are replaced.
  double worst = std::numeric_limits<double>::quiet_NaN();
  double worst_error = 0;
  std::string attack;  ///< which one it was; empty: f = 0
  int rows = 0;        ///< of the attack, hostile ones included
  /// What is proven: no attack takes `worst` beyond it, whatever it sends. None: nothing is.
  std::optional<double> kappa;
  /// On all rows as they are, with those that look bad; NaN where there are none of these.
  double given = std::numeric_limits<double>::quiet_NaN();
  double given_error = 0;
};

struct AuditRule {
  std::string rule;  ///< as it was asked for, with F
  std::vector<AuditPoint> points;
};

struct AuditAdvice {
  std::string rule;  ///< with f in it; empty: there is none to advise
  int f = 0;
  std::vector<std::string> reasons;
  std::vector<std::string> doubts;
};

struct Audit {
  int n = 0;
  int honest = 0;  ///< rows of which nothing looks bad; all below is of these
  std::int64_t d = 0;
  std::int64_t sample = 0;  ///< coordinates that coordinate-wise rules were tried on

  double mean_norm = 0;  ///< ‖μ‖, about o
  double spread = 0;     ///< √((1/m) Σ ‖x_i − μ‖²)
  double least_distance = 0, median_distance = 0, greatest_distance = 0;  ///< between two rows
  /// The mean over the sample of the size of a coordinate's skewness, and what it would be of normal values.
  double skewness = 0, normal_skewness = 0;
  std::vector<double> shares;  ///< of each tensor: its share of the squared distances between rows

  std::vector<AuditRow> rows;
  std::vector<AuditRule> rules;
  AuditAdvice advice;
};

/// Looks at workers' updates: which rows look bad and by which evidence, how different the others are, what
/// each rule would cost if there were no attacker, and what attackers could do. Reads the rows twice:
/// pipelines whose output is a combination of rows are tried on n + f numbers for each, the others on a
/// sample.
/// @throws Error invalid_argument (rows in a device's memory; fewer than 3; without coordinates; a sample
///   below 0; an f that is no minority; a base of another shape; a pipeline that trusts a row,
///   draws a sample of less than d, or is legal for n rows with no f), nonfinite_base, ParseError.
BRAGG_API Audit audit(const Updates& updates, const AuditOptions& options = {});

}  // namespace v0
}  // namespace bragg
