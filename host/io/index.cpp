// SPDX-License-Identifier: Apache-2.0
// A sharded model: an index with {"weight_map": {tensor: file}}, in the folder of the files that it names.
#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <set>
#include <system_error>
#include <tuple>

#include "host/io/json.hpp"
#include "host/io/model.hpp"

namespace bragg::detail {

namespace {

class IndexReader final : public JsonReader {
 public:
  std::map<std::string, std::string> weight_map;
  bool has_weight_map = false;

  bool null() override { return other("null"); }
  bool boolean(bool) override { return other("a boolean"); }
  bool number_integer(std::int64_t value) override { return other(std::to_string(value)); }
  bool number_unsigned(std::uint64_t value) override { return other(std::to_string(value)); }
  bool number_float(double, const std::string& text) override { return other("the number " + show(text)); }

  bool string(std::string& text) override {
    if (!in_weight_map()) return other("a string");
    entry_->second = text;
    return true;
  }

  bool start_object(std::size_t) override { return open("an object", true); }
  bool start_array(std::size_t) override { return open("an array", false); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(std::string& name) override {
    if (depth_ == 1) {
      if (!keys_.insert(name).second) return fail(fmt::format("the key {} is there twice", show(name)));
      weight_map_next_ = name == "weight_map";
      has_weight_map = has_weight_map || weight_map_next_;
    } else if (in_weight_map()) {
      bool added = false;
      std::tie(entry_, added) = weight_map.try_emplace(name);
      if (!added) return fail(fmt::format("weight_map: tensor {} is there twice", show(name)));
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
    return fail(fmt::format("weight_map: tensor {} is {}, expected a file name", show(entry_->first), found));
  }

  int depth_ = 0;
  bool weight_map_next_ = false;
  std::set<std::string> keys_;
  std::map<std::string, std::string>::iterator entry_;
};

bool is_plain_name(const std::string& name) {
  return !name.empty() && name != "." && name.find("..") == std::string::npos &&
         name.find_first_of(std::string_view("/\\\0", 3)) == std::string::npos;
}

void add_shard(Model& model, const std::string& name, const std::map<std::string, std::string>& weight_map) {
  const std::filesystem::path path = model.path.parent_path() / name;
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored))
    throw_bad_file(model.path, fmt::format("the file {} is not there", show(name)));
  Model shard = read_safetensors(ReadFile(path));
  for (StoredTensor& tensor : shard.tensors) {
    const auto entry = weight_map.find(tensor.info.name);
    if (entry == weight_map.end()) {
      throw_bad_file(model.path, fmt::format("tensor {} of {} is not in the weight_map",
                                             show(tensor.info.name), show(name)));
    }
    if (entry->second != name) {
      throw_bad_file(model.path, fmt::format("tensor {} is in two files: {}, and {} as the weight_map says",
                                             show(tensor.info.name), show(name), show(entry->second)));
    }
    tensor.file = model.files.size();
    model.tensors.push_back(std::move(tensor));
  }
  std::sort(shard.metadata.begin(), shard.metadata.end());
  if (model.files.empty()) {
    model.metadata = std::move(shard.metadata);
  } else {  // what all parts agree on
    Metadata shared;
    std::set_intersection(model.metadata.begin(), model.metadata.end(), shard.metadata.begin(),
                          shard.metadata.end(), std::back_inserter(shared));
    model.metadata = std::move(shared);
  }
  model.files.push_back(std::move(shard.files.front()));
}

}  // namespace

Model read_index(const std::filesystem::path& index) {
  const ReadFile file(index);
  if (file.size() > max_header_bytes) {
    throw_bad_file(index,
                   fmt::format("has {} bytes, an index has at most {}", file.size(), max_header_bytes));
  }
  std::string text(static_cast<std::size_t>(file.size()), '\0');
  file.read(0, text.data(), file.size());
  IndexReader reader;
  read_json(index, text, 0, reader);
  if (!reader.has_weight_map) throw_bad_file(index, "has no \"weight_map\"");

  Model model;
  model.path = index;
  std::set<std::string> shards;
  for (const auto& [tensor, name] : reader.weight_map) {
    if (!is_plain_name(name)) {
      throw_bad_file(
          index, fmt::format("weight_map: tensor {} is in {}, expected the name of a file in the same folder",
                             show(tensor), show(name)));
    }
    shards.insert(name);
  }
  if (shards.empty()) throw_bad_file(index, "the weight_map is empty");
  for (const std::string& name : shards) add_shard(model, name, reader.weight_map);
  std::sort(model.tensors.begin(), model.tensors.end(),
            [](const StoredTensor& a, const StoredTensor& b) { return a.info.name < b.info.name; });
  // Each tensor found is in the map, and only in the file it names: what is left to find is absent.
  for (std::size_t i = 0; const auto& [tensor, name] : reader.weight_map) {
    if (i == model.tensors.size() || model.tensors[i].info.name != tensor) {
      throw_bad_file(index, fmt::format("tensor {} is not in {}, where the weight_map says it is",
                                        show(tensor), show(name)));
    }
    ++i;
  }
  return model;
}

}  // namespace bragg::detail
