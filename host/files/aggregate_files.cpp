// SPDX-License-Identifier: Apache-2.0
// Aggregation of files in windows of bounded memory. Windows are read into buffers, not mapped: the bound is
// exact, page tables do not grow with the files, and a window as large as a cache is read from memory once a
// pass.
#include <fmt/format.h>
#include <omp.h>
#include <bragg/io.hpp>
#include <bragg/version.hpp>

#include <sys/stat.h>

#include <algorithm>
#include <cmath>
#include <exception>
#include <latch>
#include <memory>
#include <new>
#include <thread>

#include "host/files/inputs.hpp"
#include "host/files/lower_median.hpp"
#include "host/files/widen.hpp"
#include "host/files/window_passes.hpp"
#include "host/files/windows.hpp"
#include "host/io/element_type.hpp"
#include "host/plan/engine.hpp"
#include "host/plan/report.hpp"

namespace bragg {
inline namespace v0 {

namespace {

using namespace detail;

constexpr std::uint64_t least_memory = 1 << 20;
// Windows beyond these gain nothing: the first keeps reads long, the second keeps the window in a cache.
constexpr std::int64_t long_read = 1 << 20;
constexpr std::int64_t cached_window = 32 << 20;

bool is_floating(const TensorInfo& tensor) {
  return find_element_type(tensor.dtype)->kind == ElementKind::floating;
}

DType dtype_of(const TensorInfo& tensor) { return find_element_type(tensor.dtype)->dtype; }

DType checked_out_dtype(const TensorInfo& tensor, const Options& options) {
  const DType in = dtype_of(tensor);
  const DType out = options.out_dtype.value_or(in);
  const bool widens = out == DType::f32 && (in == DType::f16 || in == DType::bf16);
  if (out != in && !widens) {
    throw Error(
        Status::invalid_argument,
        fmt::format("out_dtype = {} for tensor {} of {}; needs {}, or f32 for 16-bit "
                    "tensors",
                    bragg::to_string(out), show(tensor.name), bragg::to_string(in), bragg::to_string(in)));
  }
  return out;
}

bool every_row(int) { return true; }

/// Starts OpenMP's threads while there is memory for them, and where a failure can still be told: OpenMP ends
/// the process. @throws Error out_of_memory.
void start_threads(int count) {
  std::vector<std::thread> tried;
  std::latch all_tried(1);
  try {
    tried.reserve(static_cast<std::size_t>(count));
    for (int i = 1; i < count; ++i) tried.emplace_back([&] { all_tried.wait(); });
  } catch (const std::exception& error) {
    const std::string why = error.what();
    all_tried.count_down();
    for (std::thread& thread : tried) thread.join();
    throw Error(Status::out_of_memory,
                fmt::format("threads = {}: the system starts only {}: {}", count, tried.size() + 1, why));
  }
  all_tried.count_down();
  for (std::thread& thread : tried) thread.join();
#pragma omp parallel num_threads(count)
  {}
}

/// Some pieces of a window.
struct Range {
  std::size_t first = 0;
  std::size_t count = 0;
};

class FileAggregation {
 public:
  FileAggregation(const Pipeline& pipeline, std::span<const std::filesystem::path> paths,
                  const FileOptions& options);
  FileResult run(const std::filesystem::path& output);

 private:
  void check_output(const std::filesystem::path& output) const;
  void plan_output();
  void plan_memory();
  void run_whole();
  void run_per_tensor();
  void run_integers();
  /// The bytes of an element where it is read, summed or written, whichever needs most.
  std::int64_t widest(std::size_t t) const;
  std::vector<Window> cut(const std::vector<std::size_t>& tensors) const;
  void load_once(const Window& window);
  /// Both passes and what is between them, over all pieces of `windows`, or over some of one that is loaded.
  void solve_and_apply(std::span<const Window> windows, Range pieces, bool loaded, const TensorInfo* tensor);

  /// Reads a window's rows that `wanted` says. Widened: every value as f64.
  template <class WantedF>
  void load(const Window& window, int slot, bool widened, WantedF wanted);
  /// Some pieces of the window in a slot.
  RowTable table(const Window& window, int slot, bool widened, Range pieces);
  void apply(const Window& window, int slot, Range pieces, Solution& solution);
  void write(const Window& window, Range pieces, const std::byte* from);
  void advance(std::uint64_t bytes);
  std::uint64_t row_bytes(const Window& window) const;
  void check(const Solution& solution, const TensorInfo* tensor) const;

  const FileOptions& options_;
  Inputs inputs_;
  Engine engine_;
  ActiveRows active_;
  int threads_;
  std::vector<RowReader> readers_;  // table rows: active, then the base
  std::vector<std::size_t> floating_, integers_;
  std::vector<DType> out_dtype_;  // per tensor
  bool widen_ = false;            // scope whole, f64 beside others: their products must share one scale

  std::vector<TensorInfo> out_tensors_;
  Layout layout_;
  std::optional<OutputFile> file_;

  std::int64_t row_stride_ = 0;
  std::unique_ptr<WindowPasses> passes_;
  std::vector<const void*> pointers_;
  std::vector<std::int64_t> sizes_;
  std::vector<void*> out_pointers_;

  Progress progress_;
  FileResult result_;
};

FileAggregation::FileAggregation(const Pipeline& pipeline, std::span<const std::filesystem::path> paths,
                                 const FileOptions& options)
    : options_(options),
      inputs_(open_inputs(paths, options.base)),
      engine_(pipeline, static_cast<int>(inputs_.rows.size()), options.options),
      threads_(options.options.threads > 0 ? options.options.threads : omp_get_max_threads()) {
  set_active_rows(options.weights, static_cast<int>(inputs_.rows.size()), options.options.max_weight_share,
                  active_);
  if (options.memory < least_memory) {
    throw Error(Status::invalid_argument,
                fmt::format("memory = {} bytes; needs at least {} (1 MiB)", options.memory, least_memory));
  }
  engine_.begin(active_, inputs_.base.has_value(), false, 0);
  for (const int row : active_.rows) {
    const InputRow& input = inputs_.rows[static_cast<std::size_t>(row)];
    readers_.emplace_back(inputs_.models[input.model], input.offset);
  }
  if (inputs_.base) readers_.emplace_back(*inputs_.base, 0);

  bool has_f64 = false, has_other = false;
  for (std::size_t t = 0; t < inputs_.tensors.size(); ++t) {
    const TensorInfo& tensor = inputs_.tensors[t];
    if (is_floating(tensor)) {
      floating_.push_back(t);
      out_dtype_.push_back(checked_out_dtype(tensor, options.options));
      (dtype_of(tensor) == DType::f64 ? has_f64 : has_other) = true;
      result_.coordinates += tensor.elements;
      result_.tensors.push_back(tensor.name);
    } else {
      integers_.push_back(t);
      out_dtype_.emplace_back();
      result_.integers += tensor.elements;
    }
  }
  widen_ = options.options.scope == Scope::whole && has_f64 && has_other;
  result_.workers = inputs_.names;
  plan_output();
  plan_memory();
}

/// The output may not take the place of a file that it is made from: the next run would read it.
void FileAggregation::check_output(const std::filesystem::path& output) const {
  struct stat there {};
  if (::stat(output.c_str(), &there) != 0) return;
  const auto check = [&](const Model& model) {
    for (const SourceFile& source : model.files) {
      if (source.id.device != there.st_dev || source.id.inode != there.st_ino) continue;
      throw Error(Status::invalid_argument,
                  fmt::format("output {} is a file of the input {}; write to another one", output.string(),
                              model.path.string()));
    }
  };
  for (const Model& model : inputs_.models) check(model);
  if (inputs_.base) check(*inputs_.base);
}

void FileAggregation::plan_output() {
  out_tensors_ = inputs_.tensors;
  for (const std::size_t t : floating_) {
    const ElementType& type = element_type_of(out_dtype_[t]);
    out_tensors_[t].dtype = type.name;
    out_tensors_[t].bytes = out_tensors_[t].elements * type.bytes;
  }
  if (inputs_.npy) {
    layout_ = npy_layout(out_tensors_.front());
    return;
  }
  Metadata metadata;
  if (inputs_.format) metadata.emplace_back("format", *inputs_.format);
  metadata.emplace_back("bragg_n", std::to_string(inputs_.rows.size()));
  metadata.emplace_back("bragg_pipeline", bragg::to_string(engine_.pipeline()));
  metadata.emplace_back("bragg_version", BRAGG_VERSION_STRING);
  layout_ = safetensors_layout(out_tensors_, metadata);
}

std::int64_t FileAggregation::widest(std::size_t t) const {
  return widen_ ? 8
                : std::max(find_element_type(inputs_.tensors[t].dtype)->bytes,
                           find_element_type(out_tensors_[t].dtype)->bytes);
}

/// Half of what the n-sized mathematics leaves is for windows; the rest is for headers and the passes'
/// scratch.
void FileAggregation::plan_memory() {
  const auto rows = static_cast<std::int64_t>(readers_.size());
  std::int64_t largest = 1, row_bytes = 0;
  constexpr std::int64_t plenty = std::int64_t{1} << 40;
  for (std::size_t t = 0; t < inputs_.tensors.size(); ++t) {
    largest = std::max(largest, widest(t));
    row_bytes = std::min(plenty, row_bytes + std::min(plenty, inputs_.tensors[t].elements) * widest(t));
  }
  constexpr std::int64_t square_matrices =
      11;  // sums, the Gram matrix, mixing matrices, and what they are made from
  const std::int64_t mathematics =
      engine_.needs_statistics() ? square_matrices * 8 * (rows + 2) * (rows + 2) : 0;
  const std::int64_t block = (rows + 1) * gram_block * largest;
  const auto memory =
      static_cast<std::int64_t>(std::min<std::uint64_t>(options_.memory, std::uint64_t{1} << 62));
  const bool on_device = options_.options.device == Device::cuda;
  const std::int64_t slots = on_device ? 2 : 1;
  const std::int64_t needed = mathematics + slots * (block + block / 4);
  if (needed > memory) {
    constexpr double mebi = 1 << 20;
    throw Error(Status::out_of_memory,
                fmt::format("memory = {:.4g} MiB is too small for {} rows with elements of {} bytes; "
                            "needs {:.0f} MiB",
                            static_cast<double>(options_.memory) / mebi, rows, largest,
                            std::ceil(static_cast<double>(needed) / mebi)));
  }
  const std::int64_t affordable =
      std::min((memory - mathematics) / (2 * slots), std::max(cached_window, rows * long_read));
  const std::int64_t useful = (rows + 1) * std::min(plenty, row_bytes + gram_block * largest);
  row_stride_ = std::max(block, std::min(affordable, useful)) / (rows + 1) / 64 * 64;
  const SlotShape shape{.rows = static_cast<int>(rows), .row_stride = row_stride_};
  passes_ = on_device ? make_cuda_passes(options_.options, shape, result_.coordinates, active_.rows)
                      : make_cpu_passes(engine_, shape);
}

std::vector<Window> FileAggregation::cut(const std::vector<std::size_t>& tensors) const {
  return plan_windows(inputs_.tensors, tensors,
                      [&](std::size_t t) { return row_stride_ / widest(t) / gram_block * gram_block; });
}

FileResult FileAggregation::run(const std::filesystem::path& output) {
  check_output(output);
  start_threads(threads_);
  file_.emplace(output, layout_.bytes);
  file_->write(0, layout_.header.data(), static_cast<std::int64_t>(layout_.header.size()));

  const std::uint64_t passes = engine_.needs_statistics() ? 2 : 1;
  progress_.passes = options_.options.scope == Scope::whole ? static_cast<int>(passes) : 1;
  for (const TensorInfo& tensor : inputs_.tensors) {
    const auto bytes = static_cast<std::uint64_t>(tensor.bytes);
    progress_.bytes_total +=
        is_floating(tensor) ? bytes * readers_.size() * passes : bytes * active_.rows.size();
  }
  advance(0);
  run_integers();
  // A model without floating-point tensors is a row of no coordinates: it has a report too.
  if (options_.options.scope == Scope::whole || floating_.empty()) {
    run_whole();
  } else {
    run_per_tensor();
  }
  file_->commit();
  return std::move(result_);
}

void FileAggregation::advance(std::uint64_t bytes) {
  progress_.bytes_done += bytes;
  if (options_.progress) options_.progress(progress_);
}

std::uint64_t FileAggregation::row_bytes(const Window& window) const {
  const TensorInfo& tensor = inputs_.tensors[window.pieces.front().tensor];
  return static_cast<std::uint64_t>(window.elements * find_element_type(tensor.dtype)->bytes);
}

template <class WantedF>
void FileAggregation::load(const Window& window, int slot, bool widened, WantedF wanted) {
  const std::int64_t size = find_element_type(inputs_.tensors[window.pieces.front().tensor].dtype)->bytes;
  std::vector<int> rows;
  for (std::size_t i = 0; i < readers_.size(); ++i) {
    if (wanted(static_cast<int>(i))) rows.push_back(static_cast<int>(i));
  }
  passes_->wait(slot);
  std::vector<std::exception_ptr> failures(rows.size());
#pragma omp parallel for schedule(dynamic) num_threads(threads_)
  for (std::size_t k = 0; k < rows.size(); ++k) {
    try {
      const int i = rows[k];
      RowReader& reader = readers_[static_cast<std::size_t>(i)];
      std::byte* const begin = passes_->rows(slot) + i * row_stride_;
      std::byte* to = begin + (widened ? window.elements * (8 - size) : 0);
      for (const Piece& piece : window.pieces) {
        reader.read(piece.tensor, piece.begin * size, piece.size() * size, to);
        to += piece.size() * size;
      }
      reader.close();  // many workers must not need as many descriptors
      if (widened)
        widen_to_f64(begin, window.elements, dtype_of(inputs_.tensors[window.pieces.front().tensor]));
    } catch (...) {
      failures[k] = std::current_exception();
    }
  }
  for (const std::exception_ptr& failure : failures) {
    if (failure) std::rethrow_exception(failure);
  }
  passes_->loaded(slot, rows, window.elements * (widened ? 8 : size));
  const std::uint64_t bytes = row_bytes(window) * rows.size();
  result_.bytes_read += bytes;
  advance(bytes);
}

RowTable FileAggregation::table(const Window& window, int slot, bool widened, Range pieces) {
  const TensorInfo& tensor = inputs_.tensors[window.pieces.front().tensor];
  const DType dtype = widened ? DType::f64 : dtype_of(tensor);
  const auto size = static_cast<std::int64_t>(size_of(dtype));
  const auto rows = static_cast<std::size_t>(engine_.table_rows());
  pointers_.assign(pieces.count * rows, nullptr);
  sizes_.clear();
  std::int64_t before = 0;
  for (std::size_t k = 0; k < pieces.first; ++k) before += window.pieces[k].size() * size;
  for (std::size_t k = 0; k < pieces.count; ++k) {
    for (std::size_t i = 0; i < readers_.size(); ++i) {
      pointers_[k * rows + i] = passes_->rows(slot) + static_cast<std::int64_t>(i) * row_stride_ + before;
    }
    sizes_.push_back(window.pieces[pieces.first + k].size());
    before += sizes_.back() * size;
  }
  return {.dtype = dtype,
          .reference_dtype = dtype,
          .inputs = static_cast<int>(active_.rows.size()),
          .rows = static_cast<int>(rows),
          .sizes = sizes_,
          .data = pointers_.data()};
}

void FileAggregation::apply(const Window& window, int slot, Range pieces, Solution& solution) {
  const DType dtype = out_dtype_[window.pieces[pieces.first].tensor];
  out_pointers_.clear();
  std::byte* to = passes_->output(slot);
  for (std::size_t k = pieces.first; k < pieces.first + pieces.count; ++k) {
    out_pointers_.push_back(to);
    to += window.pieces[k].size() * static_cast<std::int64_t>(size_of(dtype));
  }
  passes_->apply(slot, table(window, slot, false, pieces), {.dtype = dtype, .data = out_pointers_.data()},
                 solution);
}

void FileAggregation::write(const Window& window, Range pieces, const std::byte* from) {
  for (std::size_t k = pieces.first; k < pieces.first + pieces.count; ++k) {
    const Piece& piece = window.pieces[k];
    const std::int64_t size = find_element_type(out_tensors_[piece.tensor].dtype)->bytes;
    file_->write(layout_.offsets[piece.tensor] + piece.begin * size, from, piece.size() * size);
    from += piece.size() * size;
  }
}

void FileAggregation::check(const Solution& solution, const TensorInfo* tensor) const {
  if (solution.status == Status::ok) return;
  const std::string where = tensor != nullptr ? fmt::format("tensor {}: ", show(tensor->name)) : "";
  if (solution.status != Status::too_many_nonfinite) {
    std::string what = describe_failure(solution.status, {&solution.report, 1});
    if (solution.status == Status::nonfinite_base) what += ": " + options_.base.value_or("").string();
    throw Error(solution.status, where + what);
  }
  std::string files;
  int count = 0;
  constexpr int most = 8;
  for (std::size_t i = 0; i < solution.report.rows.size(); ++i) {
    const std::int64_t nonfinite = solution.report.rows[i].nonfinite;
    if (nonfinite == 0 || ++count > most) continue;
    files += fmt::format("{}{} ({} values)", count > 1 ? ", " : ": ", inputs_.names[i], nonfinite);
  }
  if (count > most) files += fmt::format(" and {} more", count - most);
  if (count == 0) files = ", but values beyond 2^500 and invalid weights count as infinite";
  throw Error(solution.status,
              fmt::format("{}too many workers are not finite for {}: {} of {} hold NaN or infinity{}; "
                          "raise f, or leave them out with weight 0",
                          where, bragg::to_string(engine_.pipeline()), count, inputs_.names.size(), files));
}

void FileAggregation::run_integers() {
  std::vector<std::size_t> valid;  // an invalid weight is no weight
  for (std::size_t i = 0; i < active_.rows.size(); ++i) {
    if (!active_.invalid[i]) valid.push_back(i);
  }
  if (integers_.empty()) return;
  if (valid.empty())
    throw Error(Status::invalid_argument, "weights: none is valid; integer tensors need at least 1");
  std::vector<const void*> rows;
  for (const std::size_t i : valid)
    rows.push_back(passes_->rows(0) + static_cast<std::int64_t>(i) * row_stride_);
  const std::uint64_t skipped = active_.rows.size() - valid.size();
  for (const Window& window : cut(integers_)) {
    progress_.bytes_total -= skipped * row_bytes(window);
    load(window, 0, false, [&](int row) {
      return std::binary_search(valid.begin(), valid.end(), static_cast<std::size_t>(row));
    });
    const TensorInfo& tensor = inputs_.tensors[window.pieces.front().tensor];
    lower_median(*find_element_type(tensor.dtype), rows, window.elements, passes_->output(0), threads_);
    write(window, {0, window.pieces.size()}, passes_->output(0));
  }
}

void FileAggregation::run_whole() {
  const auto windows = cut(floating_);
  // A model that fits into one window is read once.
  const bool loaded = windows.size() == 1 && !widen_;
  if (loaded) load_once(windows.front());
  solve_and_apply(windows, {0, windows.empty() ? 0 : windows.front().pieces.size()}, loaded, nullptr);
}

/// Tensors that fit into a window are read once: solved and applied while they are there. What earlier
/// tensors wrote is gone with the temporary file should a later one fail.
void FileAggregation::run_per_tensor() {
  const auto windows = cut(floating_);
  for (std::size_t w = 0; w < windows.size();) {
    const std::size_t t = windows[w].pieces.front().tensor;
    std::size_t end = w + 1;
    while (end < windows.size() && windows[end].pieces.front().tensor == t) ++end;
    const std::span<const Window> part(windows.data() + w, end - w);
    const bool loaded = part.size() == 1;
    if (loaded) load_once(part.front());
    for (std::size_t k = 0; k < part.front().pieces.size(); ++k) {
      solve_and_apply(part, {k, 1}, loaded, &inputs_.tensors[part.front().pieces[k].tensor]);
    }
    w = end;
  }
}

void FileAggregation::load_once(const Window& window) {
  if (engine_.needs_statistics()) progress_.bytes_total -= readers_.size() * row_bytes(window);
  load(window, 0, false, every_row);
}

void FileAggregation::solve_and_apply(std::span<const Window> windows, Range pieces, bool loaded,
                                      const TensorInfo* tensor) {
  std::uint64_t bytes = 0;  // of a row, in one pass
  for (const Window& window : windows) bytes += loaded ? 0 : row_bytes(window);
  const auto pieces_of = [&](const Window& window) {
    return loaded ? pieces : Range{0, window.pieces.size()};
  };
  // A window that was loaded once is in the first slot.
  const auto slot_of = [&](std::size_t w) {
    return loaded ? 0 : static_cast<int>(w % static_cast<std::size_t>(passes_->slots()));
  };
  GramSums sums;
  bool settled = !engine_.needs_statistics();
  if (!settled) engine_.reset(sums);
  while (!settled) {
    for (std::size_t w = 0; w < windows.size(); ++w) {
      const int slot = slot_of(w);
      if (!loaded) load(windows[w], slot, widen_, every_row);
      passes_->accumulate(slot, table(windows[w], slot, widen_, pieces_of(windows[w])), sums);
    }
    passes_->collect(sums);
    settled = engine_.settled(sums);
    if (!settled) progress_.bytes_total += bytes * readers_.size();
  }
  Solution solution;
  engine_.solve(sums, solution);
  check(solution, tensor);
  progress_.pass = progress_.passes;
  const auto reads = [&](int row) { return Engine::reads_row(solution, row); };
  for (int row = 0; row < static_cast<int>(readers_.size()); ++row) {
    if (!reads(row)) progress_.bytes_total -= bytes;
  }
  // A window is written when its slot is needed again: others are computed meanwhile.
  const auto write_window = [&](std::size_t w) {
    passes_->wait(slot_of(w));
    write(windows[w], pieces_of(windows[w]), passes_->output(slot_of(w)));
  };
  const auto slots = static_cast<std::size_t>(passes_->slots());
  passes_->start(solution);
  for (std::size_t w = 0; w < windows.size(); ++w) {
    if (w >= slots) write_window(w - slots);
    if (!loaded) load(windows[w], slot_of(w), false, reads);
    apply(windows[w], slot_of(w), pieces_of(windows[w]), solution);
  }
  for (std::size_t w = windows.size() - std::min(slots, windows.size()); w < windows.size(); ++w)
    write_window(w);
  passes_->finish(solution);
  result_.reports.push_back(std::move(solution.report));
}

}  // namespace

FileResult aggregate_files(const Pipeline& pipeline, std::span<const std::filesystem::path> inputs,
                           const std::filesystem::path& output, const FileOptions& options) {
  try {
    return FileAggregation(pipeline, inputs, options).run(output);
  } catch (const std::bad_alloc&) {
    throw Error(Status::out_of_memory,
                fmt::format("an allocation failed with memory = {} bytes for {} inputs", options.memory,
                            inputs.size()));
  }
}

}  // namespace v0
}  // namespace bragg
