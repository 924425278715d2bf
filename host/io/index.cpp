// SPDX-License-Identifier: Apache-2.0
// A sharded model: an index with {"weight_map": {tensor: file}}, in the folder of the files that it names.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <functional>
#include <map>
#include <system_error>
#include <utility>

#include "host/io/foreign.hpp"
#include "host/io/json.hpp"
#include "host/io/model.hpp"

namespace bragg::detail {

namespace {

class IndexReader final : public JsonReader {
 public:
  /// Told each tensor and the file that it is mapped to.
  using Entry = std::function<void(const std::string& tensor, const std::string& file)>;
  explicit IndexReader(Entry entry) : entry_(std::move(entry)) {}

  bool has_weight_map = false;

  bool null() override { return other("null"); }
  bool boolean(bool) override { return other("a boolean"); }
  bool number_integer(std::int64_t value) override { return other(std::to_string(value)); }
  bool number_unsigned(std::uint64_t value) override { return other(std::to_string(value)); }
  bool number_float(double, const std::string& text) override { return other("the number " + show(text)); }

  bool string(std::string& text) override {
    if (!in_weight_map()) return other("a string");
    entry_(tensor_, text);
    return true;
  }

  bool start_object(std::size_t) override { return open("an object", true); }
  bool start_array(std::size_t) override { return open("an array", false); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(std::string& name) override {
    if (depth_ == 1) {
      weight_map_next_ = name == "weight_map";
      if (weight_map_next_ && has_weight_map) return fail("the key \"weight_map\" is there twice");
      has_weight_map = has_weight_map || weight_map_next_;
    } else if (in_weight_map()) {
      tensor_ = name;
    }
    return true;
  }

 private:
  static constexpr int deepest = 32;

  bool in_weight_map() const { return depth_ == 2 && weight_map_next_; }

  /// A value outside the weight map may be anything.
  bool other(const std::string& found) { return depth_ >= 1 && !weight_map_next_ ? true : refuse(found); }

  bool open(const std::string& found, bool object) {
    const bool expected =
        depth_ == 0 || depth_ == 1 ? object || (depth_ == 1 && !weight_map_next_) : !weight_map_next_;
    if (!expected) return refuse(found);
    if (depth_ == deepest) return fail(fmt::format("is nested deeper than {}", deepest));
    ++depth_;
    return true;
  }

  bool close() {
    --depth_;
    if (depth_ == 1) weight_map_next_ = false;
    return true;
  }

  bool refuse(const std::string& found) override {
    if (depth_ == 0) return fail(fmt::format("is {}, expected an object", found));
    if (depth_ == 1) return fail(fmt::format("weight_map is {}, expected an object of file names", found));
    return fail(fmt::format("weight_map: tensor {} is {}, expected a file name", show(tensor_), found));
  }

  int depth_ = 0;
  bool weight_map_next_ = false;
  Entry entry_;
  std::string tensor_;
};

bool is_plain_name(const std::string& name) {
  return !name.empty() && name != "." && name.find("..") == std::string::npos &&
         name.find_first_of(std::string_view("/\\\0", 3)) == std::string::npos;
}

/// The files that the weight_map names, each given its place in the order of names.
std::map<std::string, std::size_t> find_shards(const ReadFile& index) {
  std::map<std::string, std::size_t> shards;
  IndexReader reader([&](const std::string& tensor, const std::string& name) {
    if (shards.contains(name)) return;
    if (!is_plain_name(name)) {
      throw_bad_file(
          index.path(),
          fmt::format("weight_map: tensor {} is in {}, expected the name of a file in the same folder",
                      show(tensor), show(name)));
    }
    std::error_code ignored;
    if (!std::filesystem::exists(index.path().parent_path() / name, ignored))
      throw_bad_file(index.path(), fmt::format("the file {} is not there", show(name)));
    shards.emplace(name, 0);
  });
  read_json(index, 0, index.size(), reader);
  if (!reader.has_weight_map) throw_bad_file(index.path(), "has no \"weight_map\"");
  if (shards.empty()) throw_bad_file(index.path(), "the weight_map is empty");
  for (std::size_t place = 0; auto& [name, at] : shards) at = place++;
  return shards;
}

}  // namespace

void visit_index(const std::filesystem::path& index, ModelVisitor& visitor) {
  const ReadFile file(index);
  if (file.size() > max_header_bytes) {
    throw_bad_file(index,
                   fmt::format("has {} bytes, an index has at most {}", file.size(), max_header_bytes));
  }
  std::array<char, 64> start{};
  file.read(0, start.data(), std::min<std::int64_t>(file.size(), 64));
  const std::size_t first =
      std::string_view(start.data(), start.size()).find_first_not_of(" \t\r\n\xef\xbb\xbf");
  if (first != std::string_view::npos && start.at(first) != '{') refuse_foreign(file);
  const auto shards = find_shards(file);
  for (const auto& [name, at] : shards) visit_safetensors(ReadFile(index.parent_path() / name), visitor);
  // Read once more rather than kept: a stranger's map may be long.
  IndexReader reader([&](const std::string& tensor, const std::string& name) {
    const auto shard = shards.find(name);
    if (shard == shards.end()) throw_bad_file(index, "changed while it was being read");
    visitor.mapped(tensor, shard->second);
  });
  read_json(file, 0, file.size(), reader);
  file.check_unchanged();
}

}  // namespace bragg::detail
