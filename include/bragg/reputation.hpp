// SPDX-License-Identifier: Apache-2.0
// What earlier rounds say of workers, by name: client weights for the next round, and who is left out of it.
#pragma once

#include <bragg/export.h>
#include <bragg/pipeline.hpp>
#include <bragg/report.hpp>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace bragg {
inline namespace v0 {

/// Parameters of a reputation; docs/reputation.md has the formulas that they are in.
struct ReputationOptions {
  double newcomer = 0.2;  ///< score of a name that is new, and what doubt alone never takes a score below
  double rise = 0.1;      ///< share of the way to 1 that a score goes in a round without evidence; below fall
  double fall = 0.5;      ///< share of its way that a score falls in a round; at most 1
  double patience = 2;    ///< rounds of being left out, beyond what others are, before a score falls
  double floor = 0.1;     ///< a score below it is quarantine; in (0, newcomer]
  int sentence = 10;      ///< rounds of a quarantine, at least 1
  int f = 0;  ///< bad rows that a rule without an f of its own is to withstand; 0: it is only watched
  bool operator==(const ReputationOptions&) const = default;
};

/// What is known of a name.
struct Standing {
  double score = 0;         ///< in [0, 1]
  double suspicion = 0;     ///< by how much it was left out beyond what others were, in rows
  int quarantine = 0;       ///< rounds of it that are left; 0: it counts
  std::int64_t rounds = 0;  ///< that it was judged in
  std::int64_t seen = 0;    ///< the round that it last took part in, quarantined or not
  bool operator==(const Standing&) const = default;
};

/// How a round is to be run.
struct Trust {
  std::vector<std::string> names = {};  ///< of all workers of the round, in their order
  std::vector<int> rows = {};           ///< which of them count, ascending; the others are in quarantine
  Pipeline pipeline = {};               ///< the rule for `rows`: a `pivot` is that of the same worker
  /// Client weights of `rows`, already capped; empty: all alike, or the rule has no weighted form. A weight
  /// that the caller gave as 0, below it or as none is here as it was.
  std::vector<double> weights = {};
  double max_weight_share = 0;             ///< what no weight exceeds of their sum
  std::vector<std::string> warnings = {};  ///< who is due for quarantine and counts nevertheless, and why
  /// Why the reputation has no say in the round, and learns alone; empty: it has one. All rows count then, by
  /// the caller's weights and cap.
  std::string only_watched = {};
};

/// What a round has shown of a worker.
struct Judgement {
  enum class Verdict : std::uint8_t {
    kept,         ///< the rule left out no more of it than of others
    left_out,     ///< more than of others, but not for long enough to tell it from chance
    doubted,      ///< more than of others, again and again
    failed,       ///< a bad input, NaN or infinity, or a weight that is none
    quarantined,  ///< it did not count
    not_judged,   ///< its weight was given as 0
  };
  std::string name = {};
  Verdict verdict = Verdict::kept;
  double before = 0, after = 0;  ///< scores
  double left_out = 0;           ///< in [0, 1]: how much of it the rule left out, beside the usual row
  int quarantine = 0;            ///< rounds that are left from now, whether or not it counted
  std::string reason = {};       ///< in words
};

/// "kept", "left out", "doubted", "failed", "quarantined", "not judged".
BRAGG_API const char* to_string(Judgement::Verdict verdict) noexcept;

/// Scores in [0, 1] of workers, by name, from the evidence of robust aggregations: `trust` says how to run a
/// round, `update` learns from its reports. Scores fall faster than they rise; new names begin low. Names are
/// the caller's: who may choose his own, or many, has no reputation to lose.
///
/// Whatever the scores are, the rule with its f is legal for the rows that count, and any f of them hold at
/// most the weight of f' ≤ 2f equal rows, for an f' that is legal, too. A rule without an f of its own has
/// that of the options. Where there is no f, or it is 0, the rule is only watched. docs/reputation.md defines
/// all of it.
class BRAGG_API Reputation {
 public:
  /// @throws Error invalid_argument: an option out of range.
  explicit Reputation(const ReputationOptions& options = {});

  /// What `save` has written; the options are those of the file. They may have been edited: a score,
  /// suspicion or quarantine that is beyond their bounds comes to lie on them.
  /// @throws Error io_error; bad_file: not such a file, or of a later version.
  static Reputation load(const std::filesystem::path& path);
  /// Writes JSON, whole or not at all. @throws Error io_error; invalid_argument: not a regular file.
  void save(const std::filesystem::path& path) const;

  /// How to run a round of these workers by `pipeline`. `weights`: the caller's client weights, one for each,
  /// or none; `max_weight_share`: the caller's cap, 0: none beside the own. Changes nothing.
  /// @throws Error invalid_argument: names that are empty, longer than 256 bytes, not UTF-8 or there twice;
  ///   weights of another number; a cap that is not in [0, 1], or below 1/n. A pipeline that is illegal for n
  ///   rows is not looked for.
  Trust trust(const Pipeline& pipeline, std::span<const std::string> names,
              std::span<const double> weights = {}, double max_weight_share = 0) const;

  /// Learns from the reports of a run of `trust` (one, or one per tensor): one row for each of trust.rows.
  /// `bad`: for each of these why it was a bad input, or an empty text; or none. A run that failed teaches
  /// nothing: its reports are refused. Returns what is made of each of trust.names.
  /// @throws Error invalid_argument.
  std::vector<Judgement> update(const Trust& trust, std::span<const Report> reports,
                                std::span<const std::string> bad = {});

  /// Of a name that is not known, that of a newcomer.
  double score(std::string_view name) const;
  /// At most 65536: beyond them, the names that have been away for longest are forgotten.
  const std::map<std::string, Standing, std::less<>>& standings() const noexcept { return standings_; }
  std::int64_t round() const noexcept { return round_; }  ///< how many `update` has learnt from
  const ReputationOptions& options() const noexcept { return options_; }

 private:
  ReputationOptions options_;
  std::int64_t round_ = 0;
  std::map<std::string, Standing, std::less<>> standings_;
};

}  // namespace v0
}  // namespace bragg
