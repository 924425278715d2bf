// SPDX-License-Identifier: Apache-2.0
// `--reputation`: what earlier runs say of the workers, and what this one adds.
#pragma once

#include <bragg/io.hpp>
#include <bragg/reputation.hpp>
#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace bragg::detail {
class OutputFile;
}

namespace bragg::cli {

/// The file of a reputation, in one run.
class ReputationFile {
 public:
  /// Reads the file, where there is one, and says how to run `pipeline` over the inputs, whose names are
  /// those of their files or folders. @throws Error bad_file, io_error; invalid_argument: two have one name.
  ReputationFile(std::filesystem::path path, const Pipeline& pipeline,
                 const std::vector<std::filesystem::path>& inputs, const std::vector<double>& weights,
                 double max_weight_share);

  const Trust& trust() const noexcept { return trust_; }
  /// The inputs that count.
  std::vector<std::filesystem::path> counting() const;
  /// Lines for stderr.
  std::string warnings() const;

  /// Learns from the run of these, and adds the others to the result, as rows of no weight.
  void learn(FileResult& result);
  /// Writes the file, for commit_together.
  std::unique_ptr<detail::OutputFile> write() const;

  /// Client weights of all inputs, or none.
  std::vector<double> weights() const;
  /// A line for each worker.
  std::string table() const;
  void add_to(nlohmann::ordered_json& report) const;

 private:
  std::filesystem::path path_;
  std::vector<std::filesystem::path> inputs_;
  Reputation reputation_;
  Trust trust_;
  std::vector<Judgement> judgements_;
};

}  // namespace bragg::cli
