// SPDX-License-Identifier: Apache-2.0
#include "host/io/model.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <set>
#include <system_error>

#include "host/base/listed.hpp"
#include "host/io/foreign.hpp"

namespace bragg::detail {

namespace fs = std::filesystem;

bool is_shard(const std::string& name) {
  const std::size_t of = name.rfind("-of-");
  const auto digit = [&](std::size_t at) { return at < name.size() && name[at] >= '0' && name[at] <= '9'; };
  return of != std::string::npos && of > 0 && digit(of - 1) && digit(of + 4);
}

namespace {

void visit_file(const fs::path& path, ModelVisitor& visitor) {
  if (path.extension() == ".json") return visit_index(path, visitor);
  const ReadFile file(path);
  if (file.size() == 0) throw_bad_file(path, "is empty");
  std::array<char, 6> magic{};
  file.read(0, magic.data(), std::min<std::int64_t>(file.size(), 6));
  const bool zip =
      std::memcmp(magic.data(), "PK\x03\x04", 4) == 0 || std::memcmp(magic.data(), "PK\x05\x06", 4) == 0;
  if (zip) refuse_foreign(file);
  if (zip || path.extension() == ".npz") return visit_npz(file, visitor);
  visitor.npy = path.extension() == ".npy" || std::memcmp(magic.data(), "\x93NUMPY", 6) == 0;
  if (!visitor.npy) return visit_safetensors(file, visitor);
  visitor.files.push_back({path, file.id()});
  if (visitor.skips({})) return;
  NpyHeader header = read_npy(file);
  visitor.tensor(header.info, {.offset = header.bytes});
}

[[noreturn]] void refuse_choice(const fs::path& folder, std::vector<std::string> names) {
  if (names.empty())
    throw_bad_file(folder, "this folder holds no *.safetensors and no *.safetensors.index.json");
  std::sort(names.begin(), names.end());
  if (std::all_of(names.begin(), names.end(), is_shard)) {
    throw_bad_file(folder,
                   fmt::format("this folder holds {} shards of a model, and no *.safetensors.index.json, "
                               "which says what belongs together",
                               names.size()));
  }
  for (std::string& name : names) name = show(name);
  throw_bad_file(folder, "this folder holds more than one model; give the path of one of " + listed(names));
}

/// The only model of a folder: a safetensors file, or an index with its parts.
void visit_folder(const fs::path& folder, ModelVisitor& visitor) {
  std::error_code error;
  std::vector<std::string> indices, names;  // all names, later without those of an index
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (name.starts_with('.')) continue;
    const bool index = name.ends_with(".safetensors.index.json");
    if (index) indices.push_back(name);
    if (index || name.ends_with(".safetensors")) names.push_back(name);
  }
  if (error) throw_io_error(folder, "list it", error.value());
  if (names.size() == 1) return visit_file(folder / names.front(), visitor);
  if (indices.size() != 1) refuse_choice(folder, names);
  visit_file(folder / indices.front(), visitor);
  std::set<std::string> parts;
  for (const SourceFile& file : visitor.files) parts.insert(file.path.filename().string());
  std::erase_if(names, [&](const std::string& name) { return parts.contains(name); });
  if (names.size() > 1) refuse_choice(folder, names);  // besides the index
}

}  // namespace

void visit_model(const fs::path& path, ModelVisitor& visitor) {
  std::error_code ignored;
  fs::is_directory(path, ignored) ? visit_folder(path, visitor) : visit_file(path, visitor);
}

}  // namespace bragg::detail
