// SPDX-License-Identifier: Apache-2.0
// JSON from untrusted files: streamed, so that a document is judged before anything is built from it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "host/io/file.hpp"

namespace bragg::detail {

/// Refuses every value; a reader overrides what it accepts and says in `failure` why it returned false.
class JsonReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  bool null() override { return refuse("null"); }
  bool boolean(bool) override { return refuse("a boolean"); }
  bool number_integer(std::int64_t value) override { return refuse(std::to_string(value)); }
  bool number_unsigned(std::uint64_t value) override { return refuse(std::to_string(value)); }
  bool number_float(double, const std::string& text) override { return refuse("the number " + show(text)); }
  bool string(std::string& text) override { return refuse("the string " + show(text)); }
  bool binary(nlohmann::json::binary_t&) override { return refuse("binary data"); }
  bool start_object(std::size_t) override { return refuse("an object"); }
  bool end_object() override { return true; }
  bool start_array(std::size_t) override { return refuse("an array"); }
  bool end_array() override { return true; }
  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::json::exception& error) override {
    // The library's text quotes the last token, which may be as long as the file.
    std::string_view what = error.what();
    const std::size_t reason = what.find("syntax error");
    what = reason == std::string_view::npos ? "a number or string that cannot be represented"
                                            : what.substr(reason);
    syntax_error = std::string(what.substr(0, std::min(what.find("; last read"), std::size_t{160})));
    syntax_error_at = position > 0 ? position - 1 : 0;
    return false;
  }

  std::string failure;
  std::string syntax_error;
  std::size_t syntax_error_at = 0;

 protected:
  bool fail(std::string what) {
    failure = std::move(what);
    return false;
  }
  /// Names the value being read and the expected one, e.g. `tensor "w": shape holds {}, expected …`.
  virtual bool refuse(const std::string& found) = 0;
};

/// Parses `text`, which starts at byte `offset` of the file. @throws Error bad_file.
inline void read_json(const std::filesystem::path& path, std::string_view text, std::int64_t offset,
                      JsonReader& reader) {
  // The library takes NUL for the end of the text, wherever it stands.
  if (const std::size_t nul = text.find('\0'); nul != std::string_view::npos) {
    throw_bad_file(path, "holds a NUL at byte " + std::to_string(static_cast<std::int64_t>(nul) + offset) +
                             ", which JSON does not allow");
  }
  if (nlohmann::json::sax_parse(text.begin(), text.end(), &reader)) return;
  if (!reader.failure.empty()) throw_bad_file(path, reader.failure);
  const auto at = static_cast<std::int64_t>(reader.syntax_error_at) + offset;
  throw_bad_file(path, "not valid JSON at byte " + std::to_string(at) + ": " + show(reader.syntax_error));
}

}  // namespace bragg::detail
