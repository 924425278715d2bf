// SPDX-License-Identifier: Apache-2.0
#include "host/cli/reputation.hpp"

#include <fmt/format.h>
#include <bragg/error.hpp>

#include <algorithm>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <string_view>
#include <system_error>
#include <utility>

#include "host/cli/output.hpp"
#include "host/cli/text.hpp"
#include "host/io/file.hpp"
#include "host/reputation/state.hpp"

namespace bragg::cli {

namespace fs = std::filesystem;

namespace {

constexpr const char* option = "--reputation";

/// The name of the file or folder, without what says of which format it is: a worker may change that.
std::string name_of(const fs::path& input) {
  const fs::path whole = fs::absolute(input).lexically_normal();  // "." is the folder that it leads to
  const fs::path plain = whole.has_filename() ? whole : whole.parent_path();
  return (is_values_name(plain) ? plain.stem() : plain.filename()).string();
}

std::vector<std::string> names_of(const std::vector<fs::path>& inputs) {
  if (inputs.size() < 2) {
    throw Error(
        Status::invalid_argument,
        "needs a file or a folder for each worker, by whose name it is known; rows of one file have none");
  }
  std::vector<std::string> names;
  std::map<std::string, fs::path> known;
  for (const fs::path& input : inputs) {
    names.push_back(name_of(input));
    const auto [found, is_new] = known.emplace(names.back(), input);
    if (is_new) continue;
    throw Error(Status::invalid_argument,
                fmt::format("{} and {} are both known as {}; name files or folders after their workers",
                            found->second.string(), input.string(), names.back()));
  }
  return names;
}

Reputation read(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored) ? Reputation::load(path) : Reputation();
}

}  // namespace

ReputationFile::ReputationFile(fs::path path, const Pipeline& pipeline, const std::vector<fs::path>& inputs,
                               const std::vector<double>& weights, double max_weight_share)
    : path_(std::move(path)), inputs_(inputs), reputation_(of_option(option, [&] { return read(path_); })) {
  const std::vector<std::string> names = of_option(option, [&] { return names_of(inputs); });
  trust_ = reputation_.trust(pipeline, names, weights, max_weight_share);
}

std::vector<fs::path> ReputationFile::counting() const {
  std::vector<fs::path> counting;
  for (const int row : trust_.rows) counting.push_back(inputs_[static_cast<std::size_t>(row)]);
  return counting;
}

std::string ReputationFile::warnings() const {
  std::string text;
  if (reputation_.round() == 0) {
    text = fmt::format("bragg: note: --reputation: {} begins now: all workers are new\n",
                       printable(path_.string()));
  }
  for (const std::string& warning : trust_.warnings)
    text += fmt::format("bragg: warning: {}\n", printable(warning));
  return text;
}

void ReputationFile::learn(FileResult& result) {
  judgements_ = reputation_.update(trust_, result.reports, result.bad);
  for (std::size_t i = 0; i < inputs_.size(); ++i) {
    if (judgements_[i].verdict != Judgement::Verdict::quarantined) continue;
    const auto at = static_cast<std::ptrdiff_t>(i);
    result.workers.insert(result.workers.begin() + at, inputs_[i].string());
    result.bad.insert(result.bad.begin() + at, "");
    for (Report& report : result.reports) {
      report.rows.insert(report.rows.begin() + at,
                         RowReport{.score = std::numeric_limits<double>::quiet_NaN()});
    }
  }
}

std::unique_ptr<detail::OutputFile> ReputationFile::write() const {
  return write_unnamed(option, path_, [&](const Put& put) { put(detail::text_of(reputation_)); });
}

std::vector<double> ReputationFile::weights() const {
  if (trust_.weights.empty()) return {};
  std::vector<double> weights(inputs_.size());
  for (std::size_t k = 0; k < trust_.rows.size(); ++k)
    weights[static_cast<std::size_t>(trust_.rows[k])] = trust_.weights[k];
  return weights;
}

std::string ReputationFile::table() const {
  std::vector<std::string> names;
  for (const Judgement& judgement : judgements_) names.push_back(printable(judgement.name));
  std::size_t width = std::string_view("reputation").size();
  for (const std::string& name : names) width = std::max(width, name.size());
  std::string table = fmt::format("{:<{}}  {:>8}  {:>8}  evidence\n", "reputation", width, "before", "after");
  for (std::size_t i = 0; i < names.size(); ++i) {
    const Judgement& judgement = judgements_[i];
    table += fmt::format("{:<{}}  {:>8.3g}  {:>8.3g}  {}\n", names[i], width, judgement.before,
                         judgement.after, printable(judgement.reason));
  }
  if (!trust_.only_watched.empty())
    table += fmt::format("only watched, no weights and no quarantine: {}\n", printable(trust_.only_watched));
  return table;
}

void ReputationFile::add_to(nlohmann::ordered_json& report) const {
  nlohmann::ordered_json& json = report["reputation"];
  json["file"] = path_.string();
  json["round"] = reputation_.round();
  json["max_weight_share"] = trust_.max_weight_share;
  json["only_watched"] = nullptr;
  if (!trust_.only_watched.empty()) json["only_watched"] = trust_.only_watched;
  json["warnings"] = trust_.warnings;
  const std::vector<double> weights = this->weights();
  for (std::size_t i = 0; i < judgements_.size(); ++i) {
    const Judgement& judgement = judgements_[i];
    const bool counted = judgement.verdict != Judgement::Verdict::quarantined;
    json["workers"].push_back({{"name", judgement.name},
                               {"verdict", to_string(judgement.verdict)},
                               {"reason", judgement.reason},
                               {"before", judgement.before},
                               {"after", judgement.after},
                               {"weight", weights.empty() ? (counted ? 1.0 : 0.0) : weights[i]},
                               {"left_out", judgement.left_out},
                               {"quarantine", judgement.quarantine}});
  }
}

}  // namespace bragg::cli
