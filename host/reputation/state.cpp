// SPDX-License-Identifier: Apache-2.0
#include "host/reputation/state.hpp"

#include <fmt/format.h>
#include <bragg/error.hpp>

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "host/io/file.hpp"
#include "host/io/json.hpp"

namespace bragg {

namespace {

using Json = nlohmann::json;

constexpr const char* format = "bragg reputation";
constexpr int version = 1;
constexpr std::int64_t longest_file = std::int64_t{64} << 20;
constexpr double most_patience = 1e6;
constexpr int most_rounds = 1'000'000;  ///< of a quarantine
constexpr int most_f = 1'000'000;

/// A value of an object of the file. @throws Error bad_file.
const Json& member(const Json& json, const char* key) {
  const auto found = json.find(key);
  if (found != json.end()) return *found;
  throw Error(Status::bad_file, fmt::format("{} is missing", key));
}

const Json& object(const Json& json, const char* key) {
  const Json& value = member(json, key);
  if (!value.is_object()) throw Error(Status::bad_file, fmt::format("{} is no object", key));
  return value;
}

/// A number of the file. @throws Error bad_file: it is none, or out of range.
template <class NumberT>
NumberT take(const Json& json, const char* key, NumberT least, NumberT most) {
  using Widest = std::conditional_t<std::is_integral_v<NumberT>, std::int64_t, double>;
  const Json& value = member(json, key);
  const bool right = std::is_integral_v<NumberT> ? value.is_number_integer() : value.is_number();
  const Widest number = right ? value.get<Widest>() : least;
  if (right && number >= least && number <= most) return static_cast<NumberT>(number);
  throw Error(Status::bad_file, fmt::format("{} is {}; needs a {}number from {} to {}", key, value.dump(),
                                            std::is_integral_v<NumberT> ? "whole " : "", least, most));
}

/// @throws Error bad_file: a key of the object is none of `keys`.
void check_keys(const Json& json, std::initializer_list<std::string_view> keys) {
  for (const auto& [key, value] : json.items()) {
    if (std::find(keys.begin(), keys.end(), key) == keys.end())
      throw Error(Status::bad_file, fmt::format("{} is no key of version {}", detail::show(key), version));
  }
}

/// Takes any value, and looks for a key that is there twice in one object. (A callback of Json::parse could,
/// but that goes through all members of an object after each of them.)
class Keys final : public detail::JsonReader {
 public:
  bool start_object(std::size_t) override {
    keys_.emplace_back();
    return true;
  }
  bool end_object() override {
    keys_.pop_back();
    return true;
  }
  bool start_array(std::size_t) override { return true; }
  bool key(std::string& key) override {
    if (!keys_.back().insert(key).second)
      throw Error(Status::bad_file, fmt::format("{} is there twice", detail::show(key)));
    return true;
  }

 protected:
  bool refuse(const std::string&) override { return true; }

 private:
  std::vector<std::set<std::string>> keys_;
};

/// @throws Error bad_file: a NUL, or a key that is there twice in one object; nlohmann::json::exception.
Json parse_json(const std::string& text) {
  // The library takes NUL for the end of the text, wherever it stands.
  if (const std::size_t at = text.find('\0'); at != std::string::npos)
    throw Error(Status::bad_file, fmt::format("is not JSON, from byte {} on", at + 1));
  Keys keys;
  Json::sax_parse(text, &keys);
  return Json::parse(text);  // which says where a text is no JSON
}

ReputationOptions options_of(const Json& json) {
  ReputationOptions options;
  options.newcomer = take(json, "newcomer", 0.0, 1.0);
  options.rise = take(json, "rise", 0.0, 1.0);
  options.fall = take(json, "fall", 0.0, 1.0);
  options.patience = take(json, "patience", 0.0, most_patience);
  options.floor = take(json, "floor", 0.0, 1.0);
  options.sentence = take(json, "sentence", 1, most_rounds);
  options.f = take(json, "f", 0, most_f);
  check_keys(json, {"newcomer", "rise", "fall", "patience", "floor", "sentence", "f"});
  detail::check_options(options);
  return options;
}

/// The options may have been edited since the standing was written.
Standing standing_of(const Json& json, const ReputationOptions& options, std::int64_t round) {
  const Standing standing = {
      .score = std::max(take(json, "score", 0.0, 1.0), options.floor),
      .suspicion = std::min(take(json, "suspicion", 0.0, most_patience + 1), options.patience + 1),
      .quarantine = std::min(take(json, "quarantine", 0, most_rounds), options.sentence),
      .rounds = take(json, "rounds", std::int64_t{0}, round),
      .seen = take(json, "seen", std::int64_t{0}, round)};
  check_keys(json, {"score", "suspicion", "quarantine", "rounds", "seen"});
  return standing;
}

std::string read_text(const std::filesystem::path& path) {
  const detail::ReadFile file(path);
  if (file.size() > longest_file)
    detail::throw_bad_file(
        path, fmt::format("has {} bytes; a reputation has at most {}", file.size(), longest_file));
  std::string text(static_cast<std::size_t>(file.size()), '\0');
  file.read(0, text.data(), file.size());
  return text;
}

}  // namespace

namespace detail {

std::optional<std::string> fault_of_name(std::string_view name) {
  if (name.empty()) return "is empty";
  if (name.size() > longest_name)
    return fmt::format("has {} bytes; at most {} are kept", name.size(), longest_name);
  try {
    static_cast<void>(Json(name).dump());
  } catch (const Json::exception&) {
    return "is not UTF-8, which the file of a reputation is";
  }
  return std::nullopt;
}

std::string text_of(const Reputation& reputation) {
  const ReputationOptions& options = reputation.options();
  Json json;
  json["format"] = format;
  json["version"] = version;
  json["round"] = reputation.round();
  json["options"] = {{"newcomer", options.newcomer},
                     {"rise", options.rise},
                     {"fall", options.fall},
                     {"patience", options.patience},
                     {"floor", options.floor},
                     {"sentence", options.sentence},
                     {"f", options.f}};
  Json& names = json["names"] = Json::object();
  for (const auto& [name, standing] : reputation.standings()) {
    names[name] = {{"score", standing.score},
                   {"suspicion", standing.suspicion},
                   {"quarantine", standing.quarantine},
                   {"rounds", standing.rounds},
                   {"seen", standing.seen}};
  }
  return json.dump(1) + "\n";
}

void check_options(const ReputationOptions& options) {
  const auto check = [](const char* name, double value, bool right, const char* needs) {
    if (right) return;
    throw Error(Status::invalid_argument, fmt::format("{} = {}; needs {}", name, value, needs));
  };
  check("newcomer", options.newcomer, options.newcomer > 0 && options.newcomer <= 1, "0 < newcomer ≤ 1");
  check("floor", options.floor, options.floor > 0 && options.floor <= options.newcomer,
        "0 < floor ≤ newcomer");
  check("fall", options.fall, options.fall > 0 && options.fall <= 1, "0 < fall ≤ 1");
  check("rise", options.rise, options.rise > 0 && options.rise < options.fall, "0 < rise < fall");
  check("patience", options.patience, options.patience > 0 && options.patience <= most_patience,
        "0 < patience ≤ 1e6");
  check("sentence", options.sentence, options.sentence >= 1 && options.sentence <= most_rounds,
        "1 ≤ sentence ≤ 1000000");
  check("f", options.f, options.f >= 0 && options.f <= most_f, "0 ≤ f ≤ 1000000");
}

}  // namespace detail

inline namespace v0 {

Reputation Reputation::load(const std::filesystem::path& path) {
  const std::string text = read_text(path);
  try {
    const Json json = parse_json(text);
    const auto kind = json.find("format");
    if (kind == json.end() || *kind != format)
      throw Error(Status::bad_file, "is not the file of a reputation");
    const int found = take(json, "version", 1, 1'000'000);
    if (found > version) {
      throw Error(Status::bad_file,
                  fmt::format("is of version {}; this bragg knows versions up to {}: take a later one", found,
                              version));
    }
    Reputation reputation(options_of(object(json, "options")));
    reputation.round_ = take(json, "round", std::int64_t{0}, std::int64_t{1} << 53);
    for (const auto& [name, standing] : object(json, "names").items()) {
      try {
        if (const auto fault = detail::fault_of_name(name))
          throw Error(Status::bad_file, "its name " + *fault);
        reputation.standings_.emplace(name, standing_of(standing, reputation.options_, reputation.round_));
      } catch (const Error& error) {
        throw Error(Status::bad_file, fmt::format("name {}: {}", detail::show(name), error.what()));
      }
    }
    check_keys(json, {"format", "version", "round", "options", "names"});
    return reputation;
  } catch (const Json::parse_error& error) {
    detail::throw_bad_file(path, fmt::format("is not JSON, from byte {} on", error.byte));
  } catch (const Json::exception&) {
    detail::throw_bad_file(path, "holds a number that is beyond the range of double");
  } catch (const Error& error) {
    detail::throw_bad_file(path, error.what());
  }
}

void Reputation::save(const std::filesystem::path& path) const {
  const std::string text = detail::text_of(*this);
  detail::OutputFile file(path, static_cast<std::int64_t>(text.size()));
  file.write(0, text.data(), static_cast<std::int64_t>(text.size()));
  file.commit();
}

}  // namespace v0

}  // namespace bragg
