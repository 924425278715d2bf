// SPDX-License-Identifier: Apache-2.0
// The index of a sharded model, beside two shards and other files.
#include <bragg/io.hpp>

#include <array>
#include <fstream>
#include <set>

#include "tests/fuzz/target.hpp"

namespace {

using namespace bragg;

constexpr std::array names = {"a", "b", "c", "layer.0.weight"};

bool write_shards() {
  constexpr std::array<float, 2> values = {1, 2};
  const auto tensor = [&](std::size_t k) { return TensorToWrite{names[k], "F32", {2}, values.data()}; };
  const std::array first = {tensor(0), tensor(1)};
  const std::array second = {tensor(2), tensor(3)};
  write_safetensors(fuzz::folder() / "1.safetensors", first);
  write_safetensors(fuzz::folder() / "2.safetensors", second);
  std::ofstream(fuzz::folder() / "notes.txt") << "no model";
  return true;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const bool written = write_shards();
  const std::filesystem::path path = fuzz::put("m.safetensors.index.json", data, size);
  try {
    const Checkpoint model = Checkpoint::open(path);
    std::set<std::string> found;
    for (const TensorInfo& tensor : model.tensors()) found.insert(tensor.name);
    fuzz::expect(written && found.size() == model.tensors().size(), "a tensor that is there twice");
    for (const std::string& name : found)
      fuzz::expect(std::find(names.begin(), names.end(), name) != names.end(),
                   "a tensor from nowhere: " + name);
  } catch (const Error& error) {
    // A shard that is not there is what the system says of it.
    if (error.status() == Status::io_error) {
      fuzz::expect(std::string(error.what()).find(fuzz::folder().string()) != std::string::npos,
                   error.what());
    } else {
      fuzz::check_refusal(error, fuzz::folder().string());
    }
  }
  return 0;
}
