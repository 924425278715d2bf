// SPDX-License-Identifier: Apache-2.0
#include "tests/fuzz/target.hpp"

#include <bragg/io.hpp>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <utility>
#include <vector>

#include "tests/support/files.hpp"

namespace bragg::fuzz {

namespace fs = std::filesystem;

namespace {

/// Whether the tensors of one file lie behind each other, without overlaps or holes.
bool tiled(const Checkpoint& model) {
  std::vector<std::pair<const char*, std::int64_t>> places;
  for (std::size_t t = 0; t < model.tensors().size(); ++t) {
    if (model.tensors()[t].bytes > 0)
      places.emplace_back(static_cast<const char*>(model.data(t)), model.tensors()[t].bytes);
  }
  std::sort(places.begin(), places.end());
  for (std::size_t k = 1; k < places.size(); ++k) {
    if (places[k - 1].first + places[k - 1].second != places[k].first) return false;
  }
  return true;
}

std::uint64_t header_bytes(const fs::path& safetensors) {
  std::uint64_t length = 0;
  std::ifstream(safetensors, std::ios::binary).read(reinterpret_cast<char*>(&length), sizeof(length));
  return sizeof(length) + length;
}

bool same_tensors(const Checkpoint& a, const Checkpoint& b) {
  if (a.tensors().size() != b.tensors().size()) return false;
  for (std::size_t t = 0; t < a.tensors().size(); ++t) {
    const TensorInfo& x = a.tensors()[t];
    const TensorInfo& y = b.tensors()[t];
    if (x.name != y.name || x.dtype != y.dtype || x.shape != y.shape || x.elements != y.elements ||
        x.bytes != y.bytes)
      return false;
    if (x.bytes > 0 && std::memcmp(a.data(t), b.data(t), static_cast<std::size_t>(x.bytes)) != 0)
      return false;
  }
  return true;
}

void write_again(const Checkpoint& model, const fs::path& path, bool npy) {
  std::vector<TensorToWrite> tensors;
  for (std::size_t t = 0; t < model.tensors().size(); ++t) {
    const TensorInfo& info = model.tensors()[t];
    tensors.push_back({info.name, info.dtype, info.shape, model.data(t)});
  }
  if (npy) {
    write_npy(path, tensors.front());
  } else {
    write_safetensors(path, tensors, model.metadata());
  }
}

}  // namespace

void expect(bool right, const std::string& what) {
  if (right) return;
  std::fprintf(stderr, "fuzz: %s\n", what.c_str());
  std::abort();
}

const fs::path& folder() {
  static const test::TemporaryFolder made;
  return made.path();
}

fs::path put(const char* name, const std::uint8_t* data, std::size_t size) {
  fs::path path = folder() / name;
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out.write(reinterpret_cast<const char*>(data), static_cast<std::streamsize>(size));
  out.close();
  expect(static_cast<bool>(out), "cannot write " + path.string());
  return path;
}

void check_refusal(const Error& error, const std::string& named) {
  constexpr std::size_t longest = 4096;
  const std::string what = error.what();
  expect(error.status() == Status::bad_file || error.status() == Status::unsupported,
         std::string(to_string(error.status())) + ": " + what);
  expect(what.find(named) != std::string::npos, "the error does not name " + named + ": " + what);
  expect(what.size() <= longest, "an error of " + std::to_string(what.size()) + " bytes");
}

void check_model(const fs::path& path, bool npy) {
  try {
    const Checkpoint model = Checkpoint::open(path);
    // An archive, whatever its name says, has a target of its own.
    if (npy && (model.tensors().size() != 1 || !model.tensors().front().name.empty())) return;
    std::uint64_t bytes = 0;
    for (std::size_t t = 0; t < model.tensors().size(); ++t) {
      const TensorInfo& info = model.tensors()[t];
      std::int64_t elements = 1;
      for (const std::int64_t extent : info.shape) {
        expect(extent >= 0, "a negative extent");
        elements *= extent;
      }
      expect(info.elements == elements, "elements that are not the product of the shape");
      bytes += static_cast<std::uint64_t>(info.bytes);
    }
    expect(tiled(model), "tensors that overlap, or have holes between them");
    if (!npy) expect(header_bytes(path) + bytes == fs::file_size(path), "tensors that do not fill the file");
    const fs::path again = folder() / (npy ? "again.npy" : "again.safetensors");
    write_again(model, again, npy);
    const Checkpoint copy = Checkpoint::open(again);
    expect(same_tensors(model, copy), "what was written is not what was read");
    expect(std::is_permutation(model.metadata().begin(), model.metadata().end(), copy.metadata().begin(),
                               copy.metadata().end()),
           "the metadata that was written is not what was read");
  } catch (const Error& error) {
    check_refusal(error, path.string());
  }
}

}  // namespace bragg::fuzz
