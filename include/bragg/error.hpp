// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bragg/export.h>
#include <stdexcept>
#include <string>

namespace bragg {
inline namespace v0 {

/// Outcome of a call or a run. The numbers are those of the C ABI (`bragg_status` in bragg.h) and do not
/// change.
enum class Status : int {
  ok = 0,
  invalid_argument =
      1,  ///< An argument breaks a stated bound; the message names it, its value and the bound.
  too_many_nonfinite = 2,  ///< More rows hold NaN or infinity than the pipeline tolerates.
  too_large = 3,           ///< An exact combinatorial rule (mda, smea) would exceed its stated work limit.
  nonfinite_base = 4,      ///< The caller's base, which a rule measures from, is not finite.
  unsupported = 5,         ///< A legal request that this build or device cannot serve.
  bad_file = 6,            ///< A file's content is malformed or disagrees with the others.
  io_error = 7,            ///< The operating system refused to open, read, write or rename.
  out_of_memory = 8,       ///< A stated memory bound is too small, or an allocation failed.
  internal = 9,            ///< A defect in bragg.
  not_converged = 10,      ///< An iterative rule ended too far from the optimum to keep its guarantee.
  nonfinite_pivot = 11,    ///< The row that the rule trusts is a bad input, or not finite.
  no_majority = 12,        ///< The rows give the rule nothing to choose by: foolsgold, all of them alike.
  communication = 13,      ///< A rank of the job failed, or did not come in time.
  disagreement = 14,       ///< The ranks were given different things, or computed different bits.
};

/// The name of a status as it is spelled above, e.g. "too_many_nonfinite".
BRAGG_API const char* to_string(Status status) noexcept;

/// The one exception type that bragg throws. std::bad_alloc comes from calls that neither plan nor run, such
/// as parse, where the host has no memory for what they return, and from any call where it has none for the
/// message.
class BRAGG_API Error : public std::runtime_error {
 public:
  Error(Status status, const std::string& message);
  ~Error() override;  // out of line: one vtable and type_info, in the library
  Error(const Error&) = default;
  Error& operator=(const Error&) = default;

  Status status() const noexcept { return status_; }

 private:
  Status status_;
};

/// A mistake in the text form of a pipeline.
class BRAGG_API ParseError : public Error {
 public:
  ParseError(const std::string& message, int column);
  ~ParseError() override;
  ParseError(const ParseError&) = default;
  ParseError& operator=(const ParseError&) = default;

  /// 1-based column of the first character that cannot be accepted.
  int column() const noexcept { return column_; }

 private:
  int column_;
};

}  // namespace v0
}  // namespace bragg
