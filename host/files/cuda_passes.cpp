// SPDX-License-Identifier: Apache-2.0
// Windows of files on a device: page-locked slots, copies and kernels in order on a stream of each slot's
// own, so that one window is copied while another is computed and a third is read. Sums go from window to
// window through events. The n-sized mathematics is the host's: it waits for the files anyway.
#include "host/files/window_passes.hpp"

#include <algorithm>
#include <memory>

#include "host/cuda/device.hpp"
#include "host/cuda/layout.hpp"
#include "host/cuda/table.hpp"
#include "kernels/combine/combine.hpp"
#include "kernels/common/upload.hpp"
#include "kernels/gram/gram.hpp"
#include "kernels/runtime/runtime.hpp"
#include "kernels/select/select.hpp"

namespace bragg::detail::cuda {

namespace {

/// Device memory that grows on demand; growing loses its content.
class GrowingMemory {
 public:
  void* at_least(std::size_t bytes, Stream stream) {
    if (memory_.bytes() < bytes) {
      synchronize(stream);
      memory_ = DeviceMemory();
      memory_ = DeviceMemory(bytes + bytes / 4);
    }
    return memory_.data();
  }

 private:
  DeviceMemory memory_;
};

struct Slot {
  PinnedMemory rows, output;
  DeviceMemory device_rows, device_output;
  GrowingMemory table, partial, centers, library, workspace;
  OwnStream stream;
};

class CudaWindowPasses final : public WindowPasses {
 public:
  CudaWindowPasses(int device, const SlotShape& shape, std::int64_t coordinates, std::span<const int> active);
  ~CudaWindowPasses() override;

  int slots() const noexcept override { return slot_count; }
  std::byte* rows(int slot) noexcept override { return static_cast<std::byte*>(slots_[slot].rows.data()); }
  std::byte* output(int slot) noexcept override {
    return static_cast<std::byte*>(slots_[slot].output.data());
  }
  void wait(int slot) override;
  void loaded(int slot, std::span<const int> rows, std::int64_t bytes) override;
  void accumulate(int slot, const RowTable& window, GramSums& sums) override;
  void collect(GramSums& sums) override;
  void scan(int slot, const RowTable& window) override;
  void scanned(std::span<std::int64_t> nonfinite) override;
  void start(const Solution& solution) override;
  void apply(int slot, const RowTable& window, const OutTable& out, Solution& solution) override;
  void finish(Solution& solution) override;

 private:
  static constexpr int slot_count = 2;

  /// A window's data on the device.
  struct Window {
    Rows rows;
    Cut cut;
    Target target;
  };
  Window describe(int slot, const RowTable& window, std::int64_t length, const OutTable* out);
  void begin_sums(const GramSums& sums, int rows);
  /// What cuBLAS takes, where it computes products of so many rows.
  GramLibrary library_for(int rows, int slot);

  const OnDevice on_;
  const GramUnit unit_;
  std::unique_ptr<Blas> blas_;  // of GramUnit::cublas
  SlotShape shape_;
  std::int64_t chunk_;
  std::vector<int> active_;
  Slot slots_[slot_count];
  Event last_;  // of the sums, or the counters

  // Sums of pass 1.
  GrowingMemory sums_;
  bool summing_ = false;
  double* products_ = nullptr;
  double* low_ = nullptr;
  unsigned long long* nonfinite_ = nullptr;
  unsigned long long* max_abs_ = nullptr;
  double* scale_ = nullptr;
  double* median_weights_ = nullptr;
  std::uint8_t* left_out_ = nullptr;

  // Of what was scanned.
  GrowingMemory scan_;
  std::size_t scanned_rows_ = 0;  // 0: nothing was

  // Of the solution.
  GrowingMemory solution_;
  const double* matrix_ = nullptr;  // of a combination, or of mixed points
  const double* weights_ = nullptr;
  const int* status_ = nullptr;
  const int* infinite_everywhere_ = nullptr;
  const int* chosen_ = nullptr;
  const std::uint8_t* infinite_ = nullptr;
};

CudaWindowPasses::CudaWindowPasses(int device, const SlotShape& shape, std::int64_t coordinates,
                                   std::span<const int> active)
    : on_(device),
      unit_(wanted_gram_unit()),
      shape_(shape),
      chunk_(std::min<std::int64_t>(gram_chunk_length(coordinates), gram_block)),
      active_(active.begin(), active.end()) {
  const auto bytes = static_cast<std::size_t>(shape.rows * shape.row_stride);
  const auto row_bytes = static_cast<std::size_t>(shape.row_stride);
  for (Slot& slot : slots_) {
    slot.rows = PinnedMemory(bytes);
    slot.output = PinnedMemory(row_bytes);
    slot.device_rows = DeviceMemory(bytes);
    slot.device_output = DeviceMemory(row_bytes);
  }
}

CudaWindowPasses::~CudaWindowPasses() {
  try {
    for (const Slot& slot : slots_) synchronize(slot.stream.get());
  } catch (const Error&) {
    // The device has failed; who waited for it was told.
  }
}

void CudaWindowPasses::wait(int slot) { synchronize(slots_[slot].stream.get()); }

void CudaWindowPasses::loaded(int slot, std::span<const int> rows, std::int64_t bytes) {
  const Slot& s = slots_[slot];
  for (const int row : rows) {
    const Place<std::byte> place{static_cast<std::size_t>(row * shape_.row_stride)};
    copy_to_device(place.in(s.device_rows.data()), place.in(s.rows.data()), static_cast<std::size_t>(bytes),
                   s.stream.get());
  }
}

CudaWindowPasses::Window CudaWindowPasses::describe(int slot, const RowTable& window, std::int64_t length,
                                                    const OutTable* out) {
  Slot& s = slots_[slot];
  const std::size_t tensors = window.sizes.size();
  const auto count = static_cast<std::size_t>(window.rows);
  const auto mirrored = [](const PinnedMemory& host, const DeviceMemory& device, const void* address) {
    const std::ptrdiff_t offset =
        static_cast<const std::byte*>(address) - static_cast<const std::byte*>(host.data());
    return static_cast<std::byte*>(device.data()) + offset;
  };
  RunTable table(tensors, window.rows, 2 * tensors + 1);
  table.start(window.rows);
  Window made{.rows = {.tensors = static_cast<int>(tensors),
                       .count = window.rows,
                       .inputs = window.inputs,
                       .dtype = window.dtype,
                       .reference_dtype = {window.reference_dtype, window.reference_dtype}},
              .cut = {.tensors = static_cast<int>(tensors), .length = length},
              .target = {}};
  for (int r = window.inputs; r < window.rows; ++r) {
    made.rows.zeros[r - window.inputs] = tensors > 0 && window.data[static_cast<std::size_t>(r)] == nullptr;
  }
  std::int64_t* const sizes = table.numbers();
  std::int64_t* const first = sizes + tensors;
  for (std::size_t t = 0; t < tensors; ++t) {
    sizes[t] = window.sizes[t];
    first[t] = made.cut.pieces;
    made.cut.pieces += (sizes[t] + length - 1) / length;
    for (std::size_t r = 0; r < count && sizes[t] > 0; ++r) {
      const void* const address = window.data[t * count + r];
      if (address != nullptr) {
        table.set_row(t, static_cast<int>(r), mirrored(s.rows, s.device_rows, address),
                      window.dtype_of(static_cast<int>(r)));
      }
    }
    if (out != nullptr) table.set_target(t, mirrored(s.output, s.device_output, out->data[t]), out->dtype);
  }
  first[tensors] = made.cut.pieces;

  void* const device = s.table.at_least(table.bytes(), s.stream.get());
  upload(device, table.data(), table.bytes(), s.stream.get());
  made.rows.data = table.at().rows.in(device);
  made.rows.sizes = table.at().numbers.in(device);
  made.rows.alignment = table.at().alignment.in(device);
  made.cut.first = made.rows.sizes + tensors;
  made.target.data = table.at().target.in(device);
  if (out != nullptr) made.target.dtype = out->dtype;
  return made;
}

void CudaWindowPasses::begin_sums(const GramSums& sums, int rows) {
  const auto n = static_cast<std::size_t>(rows);
  const std::size_t squares = sums.wanted ? n * n : 0;
  Layout layout;
  const auto products = layout.add<double>(squares);
  const auto low = layout.add<double>(squares);
  const auto nonfinite = layout.add<unsigned long long>(n);
  const auto max_abs = layout.add<unsigned long long>(n);
  const auto scale = layout.add<double>(1);
  const auto weights = layout.add<double>(n);
  const auto left_out = layout.add<std::uint8_t>(n);
  const Stream stream = slots_[0].stream.get();
  void* const memory = sums_.at_least(layout.bytes(), stream);
  products_ = products.in(memory);
  low_ = low.in(memory);
  nonfinite_ = nonfinite.in(memory);
  max_abs_ = max_abs.in(memory);
  scale_ = scale.in(memory);
  median_weights_ = weights.in(memory);
  left_out_ = left_out.in(memory);
  set_bytes(memory, 0, layout.bytes(), stream);
  copy_to_device(scale_, &sums.scale, sizeof(double), stream);
  const GramCenter& center = sums.center;
  if (center.kind != GramCenter::Kind::none) {
    copy_to_device(left_out_, center.left_out.data(), center.left_out.size(), stream);
    copy_to_device(median_weights_, center.weights.data(), center.weights.size() * sizeof(double), stream);
  }
  last_.record(stream);
  summing_ = true;
}

GramLibrary CudaWindowPasses::library_for(int rows, int slot) {
  if (unit_ != GramUnit::cublas) return {};
  if (!blas_) blas_ = std::make_unique<Blas>();
  Slot& s = slots_[slot];
  return {.blas = blas_.get(),
          .memory = s.library.at_least(gram_library_bytes(rows, *blas_), s.stream.get())};
}

void CudaWindowPasses::accumulate(int slot, const RowTable& window, GramSums& sums) {
  Slot& s = slots_[slot];
  const Stream stream = s.stream.get();
  if (!summing_) begin_sums(sums, window.rows);
  const Window w = describe(slot, window, chunk_, nullptr);
  const bool pairs = sums.pairs || !have_one_dtype(w.rows);
  const std::size_t partial =
      sums.wanted ? gram_partial_doubles(w.rows.count, w.cut.pieces, pairs) * sizeof(double) : 0;
  const bool wide = window.dtype == DType::f64;
  sums.wide = sums.wide || wide;
  const GramCenter& center = sums.center;
  const std::size_t centers =
      center.kind == GramCenter::Kind::median ? gram_center_bytes(w.rows, w.cut, pairs, unit_) : 0;
  last_.wait(stream);
  gram({.rows = w.rows,
        .chunks = w.cut,
        .parts = {},
        .partial = static_cast<double*>(s.partial.at_least(partial, stream)),
        .batch = gram_batch(w.rows.count, w.cut.pieces, pairs),
        .products = sums.wanted ? products_ : nullptr,
        .pairs = pairs,
        .add = true,
        .low = sums.wanted ? low_ : nullptr,
        .nonfinite = nonfinite_,
        .max_abs = wide ? max_abs_ : nullptr,
        .scale = wide ? scale_ : nullptr,
        .skip = nullptr,
        .center = center.kind == GramCenter::Kind::median ? Center::median
                  : center.kind == GramCenter::Kind::row  ? Center::row
                                                          : Center::none,
        .center_row = center.row,
        .left_out = left_out_,
        .weights = center.weights.empty() ? nullptr : median_weights_,
        .centers = s.centers.at_least(centers, stream),
        .unit = unit_},
       stream, pairs && sums.wanted ? library_for(w.rows.count, slot) : GramLibrary{});
  last_.record(stream);
}

void CudaWindowPasses::collect(GramSums& sums) {
  if (!summing_) return;  // there was no window
  summing_ = false;
  const Stream stream = slots_[0].stream.get();
  last_.wait(stream);
  const auto n = static_cast<std::size_t>(sums.rows);
  if (sums.wanted) {
    copy_to_host(sums.products.data(), products_, sums.products.size() * sizeof(double), stream);
    copy_to_host(sums.low.data(), low_, sums.low.size() * sizeof(double), stream);
  }
  copy_to_host(sums.nonfinite.data(), nonfinite_, n * sizeof(std::int64_t), stream);
  copy_to_host(sums.max_abs.data(), max_abs_, n * sizeof(double), stream);
  synchronize(stream);
  sums.rounding = gram_rounding(gram_additions + 2);
}

void CudaWindowPasses::scan(int slot, const RowTable& window) {
  const Stream stream = slots_[slot].stream.get();
  const auto rows = static_cast<std::size_t>(window.rows);
  const std::size_t bytes = rows * sizeof(std::int64_t);
  void* const counts = scan_.at_least(bytes, stream);
  if (scanned_rows_ == 0) {
    set_bytes(counts, 0, bytes, stream);
    last_.record(stream);
  }
  scanned_rows_ = rows;
  const Window w = describe(slot, window, chunk_, nullptr);
  last_.wait(stream);
  gram({.rows = w.rows, .chunks = w.cut, .parts = {}, .nonfinite = static_cast<unsigned long long*>(counts)},
       stream);
  last_.record(stream);
}

void CudaWindowPasses::scanned(std::span<std::int64_t> nonfinite) {
  if (scanned_rows_ == 0) return;
  std::vector<std::int64_t> counts(scanned_rows_);
  const Stream stream = slots_[0].stream.get();
  last_.wait(stream);
  copy_to_host(counts.data(), scan_.at_least(0, stream), counts.size() * sizeof(std::int64_t), stream);
  synchronize(stream);
  for (std::size_t i = 0; i < counts.size(); ++i) nonfinite[i] += counts[i];
  scanned_rows_ = 0;
}

void CudaWindowPasses::start(const Solution& solution) {
  const Stream stream = slots_[0].stream.get();
  const std::size_t rows = active_.size() + 1;  // and the origin
  const std::size_t points = solution.coordinate_wise ? static_cast<std::size_t>(solution.points) : 0;
  const std::vector<double>& numbers = solution.coordinate_wise ? solution.mix : solution.coefficients;
  // By point; rows that are points are all rows, or chosen ones.
  const std::size_t marks = solution.mixed ? points : rows;
  Layout layout;
  const auto matrix = layout.add<double>(numbers.size());
  const auto weights = layout.add<double>(marks);
  const auto status = layout.add<int>(1);
  const auto infinite_everywhere = layout.add<int>(1);
  const auto chosen = layout.add<int>(points);
  const auto infinite = layout.add<std::uint8_t>(marks);
  const auto nonfinite = layout.add<unsigned long long>(rows);

  std::vector<std::byte> image(layout.bytes());
  void* const here = image.data();
  std::copy(numbers.begin(), numbers.end(), matrix.in(here));
  *status.in(here) = static_cast<int>(Status::ok);
  *infinite_everywhere.in(here) = solution.infinite_everywhere ? 1 : 0;
  for (std::size_t p = 0; p < points; ++p) {
    const std::size_t k = solution.mixed ? p : static_cast<std::size_t>(solution.rows[p]);
    if (!solution.weights.empty()) weights.in(here)[k] = solution.weights[p];
    if (!solution.infinite.empty()) infinite.in(here)[k] = solution.infinite[p];
    if (!solution.mixed) chosen.in(here)[p] = solution.rows[p];
  }

  void* const memory = solution_.at_least(image.size(), stream);
  copy_to_device(memory, image.data(), image.size(), stream);
  synchronize(stream);  // the image goes
  matrix_ = matrix.in(memory);
  weights_ = solution.weights.empty() ? nullptr : weights.in(memory);
  status_ = status.in(memory);
  infinite_everywhere_ = infinite_everywhere.in(memory);
  chosen_ = chosen.in(memory);
  infinite_ = solution.infinite.empty() ? nullptr : infinite.in(memory);
  nonfinite_ = nonfinite.in(memory);
}

void CudaWindowPasses::apply(int slot, const RowTable& window, const OutTable& out, Solution& solution) {
  Slot& s = slots_[slot];
  const Stream stream = s.stream.get();
  const Window w = describe(slot, window, tile_length, &out);
  const Gate gate{.status = status_, .on_failure = OnFailure::keep};
  unsigned long long* const counters = solution.counted ? nullptr : nonfinite_;
  if (!solution.coordinate_wise) {
    combine({.rows = w.rows,
             .tiles = w.cut,
             .parts = {},
             .out = w.target,
             .gate = gate,
             .coefficients = matrix_,
             .infinite = infinite_everywhere_,
             .nonfinite = counters},
            stream);
  } else {
    SelectArguments arguments{.rows = w.rows,
                              .tiles = w.cut,
                              .parts = {},
                              .out = w.target,
                              .gate = gate,
                              .rule = solution.rule,
                              .points = solution.points,
                              .chosen = solution.mixed ? nullptr : chosen_,
                              .mix = solution.mixed ? matrix_ : nullptr,
                              .infinite = infinite_,
                              .weights = weights_,
                              .nonfinite = solution.mixed ? nullptr : counters};
    arguments.workspace = s.workspace.at_least(select_workspace_bytes(arguments), stream);
    select(arguments, stream);
  }
  std::int64_t elements = 0;
  for (const std::int64_t size : window.sizes) elements += size;
  copy_to_host(s.output.data(), s.device_output.data(),
               static_cast<std::size_t>(elements) * size_of(out.dtype), stream);
}

void CudaWindowPasses::finish(Solution& solution) {
  for (int slot = 0; slot < slot_count; ++slot) wait(slot);
  if (solution.counted) return;
  std::vector<std::int64_t> counts(active_.size());
  const Stream stream = slots_[0].stream.get();
  copy_to_host(counts.data(), nonfinite_, counts.size() * sizeof(std::int64_t), stream);
  synchronize(stream);
  for (std::size_t i = 0; i < counts.size(); ++i) {
    solution.report.rows[static_cast<std::size_t>(active_[i])].nonfinite += counts[i];
  }
}

}  // namespace

}  // namespace bragg::detail::cuda

namespace bragg::detail {

std::unique_ptr<WindowPasses> make_cuda_passes(const Options& options, const SlotShape& shape,
                                               std::int64_t coordinates, std::span<const int> active) {
  return std::make_unique<cuda::CudaWindowPasses>(cuda::checked_device(options), shape, coordinates, active);
}

}  // namespace bragg::detail
