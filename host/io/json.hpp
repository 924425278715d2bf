// SPDX-License-Identifier: Apache-2.0
// JSON from untrusted files: streamed, so that a document is judged before anything is built from it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
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

/// Bytes of a file, read some at a time as the parser asks for them. A worker chooses them, so the parser is
/// given no string or number that is longer than it may keep.
class JsonBytes {
 public:
  class Iterator {
   public:
    using iterator_category = std::input_iterator_tag;
    using value_type = char;
    using difference_type = std::ptrdiff_t;
    using pointer = const char*;
    using reference = char;

    Iterator() = default;
    explicit Iterator(JsonBytes& bytes) : bytes_(&bytes) {}
    char operator*() const { return bytes_->here_; }
    Iterator& operator++() {
      bytes_->advance();
      return *this;
    }
    /// Only with the end.
    bool operator==(const Iterator& /*end*/) const { return bytes_->ended_; }

   private:
    JsonBytes* bytes_ = nullptr;
  };

  JsonBytes(const ReadFile& file, std::int64_t begin, std::int64_t end) : file_(file), at_(begin), end_(end) {
    advance();
  }

 private:
  static constexpr std::int64_t longest = std::int64_t{4} << 20;

  void advance() {
    if (next_ == buffer_.size()) fill();
    if (ended_) return;
    here_ = buffer_[next_++];
    const std::int64_t byte = at_ - static_cast<std::int64_t>(buffer_.size() - next_) - 1;
    // The library takes NUL for the end of the text, wherever it stands.
    if (here_ == '\0') {
      throw_bad_file(file_.path(),
                     "holds a NUL at byte " + std::to_string(byte) + ", which JSON does not allow");
    }
    if (escaped_) {
      escaped_ = false;
    } else if (here_ == '\\') {
      escaped_ = true;
    } else if (here_ == '"') {
      since_quote_ = 0;
    }
    if (++since_quote_ > longest) {
      throw_bad_file(file_.path(), "holds more than " + std::to_string(longest) +
                                       " bytes without a quote, up to byte " + std::to_string(byte));
    }
  }

  void fill() {
    constexpr std::int64_t some = 1 << 16;
    const std::int64_t bytes = std::min(some, end_ - at_);
    ended_ = bytes <= 0;
    if (ended_) return;
    buffer_.resize(static_cast<std::size_t>(bytes));
    file_.read(at_, buffer_.data(), bytes);
    at_ += bytes;
    next_ = 0;
  }

  const ReadFile& file_;
  std::int64_t at_, end_;  // what is not in the buffer yet
  std::string buffer_;
  std::size_t next_ = 0;
  char here_ = '\0';
  bool ended_ = false, escaped_ = false;
  std::int64_t since_quote_ = 0;
};

/// Parses bytes [begin, end) of a file. @throws Error bad_file.
inline void read_json(const ReadFile& file, std::int64_t begin, std::int64_t end, JsonReader& reader) {
  JsonBytes bytes(file, begin, end);
  if (nlohmann::json::sax_parse(JsonBytes::Iterator(bytes), JsonBytes::Iterator(), &reader)) return;
  if (!reader.failure.empty()) throw_bad_file(file.path(), reader.failure);
  const auto at = static_cast<std::int64_t>(reader.syntax_error_at) + begin;
  throw_bad_file(file.path(),
                 "not valid JSON at byte " + std::to_string(at) + ": " + show(reader.syntax_error));
}

}  // namespace bragg::detail
