// SPDX-License-Identifier: Apache-2.0
#include <sys/mman.h>
#include <bragg/io.hpp>

#include <cerrno>

#include "host/io/element_type.hpp"
#include "host/io/inflate.hpp"
#include "host/io/model.hpp"

namespace bragg {
inline namespace v0 {

namespace {

class Mapping {
 public:
  explicit Mapping(const detail::ReadFile& file) : size_(static_cast<std::size_t>(file.size())) {
    void* address =
        ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.descriptor(), 0);  // never empty: it has a header
    if (address == MAP_FAILED) detail::throw_io_error(file.path(), "map it", errno);
    address_ = static_cast<const char*>(address);
  }
  ~Mapping() {
    if (address_ != nullptr) ::munmap(const_cast<char*>(address_), size_);
  }
  Mapping(Mapping&& other) noexcept : address_(std::exchange(other.address_, nullptr)), size_(other.size_) {}
  Mapping& operator=(Mapping&&) = delete;

  const char* address() const noexcept { return address_; }

 private:
  const char* address_ = nullptr;
  std::size_t size_;
};

void write_whole(const std::filesystem::path& path, const detail::Layout& layout,
                 std::span<const TensorToWrite> tensors) {
  detail::OutputFile file(path, layout.bytes);
  file.write(0, layout.header.data(), static_cast<std::int64_t>(layout.header.size()));
  for (std::size_t t = 0; t < tensors.size(); ++t) {
    const std::int64_t size = detail::find_element_type(tensors[t].dtype)->bytes;
    file.write(layout.offsets[t], tensors[t].data, *detail::element_count(tensors[t].shape, size) * size);
  }
  file.commit();
}

TensorInfo info_of(const TensorToWrite& tensor) { return {tensor.name, tensor.dtype, tensor.shape, 0, 0}; }

}  // namespace

struct Checkpoint::Impl {
  detail::Model model;
  std::vector<TensorInfo> tensors;
  std::vector<Mapping> mappings;
  std::vector<std::unique_ptr<char[]>> inflated;  // of tensors that are deflated in their file
};

Checkpoint::Checkpoint() : impl_(std::make_unique<Impl>()) {}
Checkpoint::~Checkpoint() = default;
Checkpoint::Checkpoint(Checkpoint&&) noexcept = default;
Checkpoint& Checkpoint::operator=(Checkpoint&&) noexcept = default;

Checkpoint Checkpoint::open(const std::filesystem::path& path) {
  Checkpoint checkpoint;
  Impl& impl = *checkpoint.impl_;
  impl.model = detail::open_model(path);
  for (const detail::StoredTensor& tensor : impl.model.tensors) impl.tensors.push_back(tensor.info);
  for (const detail::SourceFile& source : impl.model.files) {
    const detail::ReadFile file(source.path);
    if (file.id() != source.id) detail::throw_bad_file(source.path, "changed while it was being opened");
    impl.mappings.emplace_back(file);
  }
  impl.inflated.resize(impl.tensors.size());
  for (std::size_t t = 0; t < impl.tensors.size(); ++t) {
    const detail::StoredTensor& tensor = impl.model.tensors[t];
    const detail::Extent& extent = tensor.extent;
    if (extent.skipped == 0) continue;
    const detail::ReadFile file(impl.model.files[tensor.file].path);
    impl.inflated[t].reset(new char[static_cast<std::size_t>(tensor.info.bytes)]);
    detail::Inflater inflater(extent.offset);
    inflater.read(file, extent.skipped, impl.inflated[t].get(), tensor.info.bytes);
    inflater.finish(file, extent.crc);
  }
  return checkpoint;
}

const std::filesystem::path& Checkpoint::path() const noexcept { return impl_->model.path; }
std::span<const TensorInfo> Checkpoint::tensors() const noexcept { return impl_->tensors; }
const std::vector<std::pair<std::string, std::string>>& Checkpoint::metadata() const noexcept {
  return impl_->model.metadata;
}

const void* Checkpoint::data(std::size_t t) const noexcept {
  const detail::StoredTensor& tensor = impl_->model.tensors[t];
  if (impl_->inflated[t]) return impl_->inflated[t].get();
  return impl_->mappings[tensor.file].address() + tensor.extent.offset;
}

void write_safetensors(const std::filesystem::path& path, std::span<const TensorToWrite> tensors,
                       std::span<const std::pair<std::string, std::string>> metadata) {
  std::vector<TensorInfo> infos;
  for (const TensorToWrite& tensor : tensors) infos.push_back(info_of(tensor));
  write_whole(path, detail::safetensors_layout(infos, {metadata.begin(), metadata.end()}), tensors);
}

void write_npy(const std::filesystem::path& path, const TensorToWrite& array) {
  write_whole(path, detail::npy_layout(info_of(array)), {&array, 1});
}

}  // namespace v0
}  // namespace bragg
