// SPDX-License-Identifier: Apache-2.0
#include "host/io/model.hpp"

#include <fmt/format.h>

#include <array>
#include <cstring>
#include <system_error>

namespace bragg::detail {

namespace fs = std::filesystem;

namespace {

/// The index or the only safetensors file of a folder.
fs::path model_of_folder(const fs::path& folder) {
  std::error_code error;
  fs::path index, single;
  int indices = 0, singles = 0;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (name.starts_with('.')) continue;
    if (name.ends_with(".safetensors.index.json")) {
      ++indices;
      index = entry->path();
    } else if (name.ends_with(".safetensors")) {
      ++singles;
      single = entry->path();
    }
  }
  if (error) throw_io_error(folder, "list it", error.value());
  if (indices == 1) return index;
  if (indices == 0 && singles == 1) return single;
  throw_bad_file(
      folder,
      fmt::format("this folder holds {} *.safetensors.index.json and {} *.safetensors, expected one index or "
                  "one model",
                  indices, singles));
}

void visit_file(const fs::path& path, ModelVisitor& visitor) {
  if (path.extension() == ".json") return visit_index(path, visitor);
  const ReadFile file(path);
  if (file.size() == 0) throw_bad_file(path, "is empty");
  std::array<char, 6> magic{};
  file.read(0, magic.data(), std::min<std::int64_t>(file.size(), 6));
  visitor.npy = path.extension() == ".npy" || std::memcmp(magic.data(), "\x93NUMPY", 6) == 0;
  if (!visitor.npy) return visit_safetensors(file, visitor);
  visitor.files.push_back({path, file.id()});
  Model model = read_npy(file);
  for (StoredTensor& tensor : model.tensors) visitor.tensor(tensor.info, tensor.offset);
}

}  // namespace

void visit_model(const fs::path& path, ModelVisitor& visitor) {
  std::error_code ignored;
  visit_file(fs::is_directory(path, ignored) ? model_of_folder(path) : path, visitor);
}

}  // namespace bragg::detail
