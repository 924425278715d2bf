// SPDX-License-Identifier: Apache-2.0
// Aggregation of files in windows of bounded memory.
#include <fmt/format.h>
#include <omp.h>
#include <bragg/io.hpp>

#include <algorithm>
#include <iterator>
#include <new>

#include "host/files/convert.hpp"
#include "host/files/failure.hpp"
#include "host/files/integers.hpp"
#include "host/files/lower_median.hpp"
#include "host/files/memory_plan.hpp"
#include "host/files/nonfinite.hpp"
#include "host/files/output_plan.hpp"
#include "host/files/progress_counter.hpp"
#include "host/files/threads.hpp"
#include "host/files/window_reader.hpp"

namespace bragg {
inline namespace v0 {

namespace {

using namespace detail;

/// What is solved together: all of some windows, or some pieces of the one in slot 0.
struct Part {
  std::span<const Window> windows;
  bool loaded = false;
  Range pieces = {};                   ///< of the window that is loaded
  const TensorInfo* tensor = nullptr;  ///< null: the whole row

  Range pieces_of(const Window& window) const { return loaded ? pieces : Range{0, window.pieces.size()}; }
  /// Bytes of a row that each pass has to read.
  std::uint64_t bytes() const {
    std::uint64_t bytes = 0;
    for (const Window& window : windows) bytes += loaded ? 0 : window.bytes();
    return bytes;
  }
};

/// An input of which some was used already cannot be read on.
struct InputLost {};

class FileAggregation {
 public:
  FileAggregation(const Pipeline& pipeline, Inputs& inputs, const std::filesystem::path& output,
                  const FileOptions& options, ProgressCounter& progress, std::uint64_t& bytes_read);
  /// @throws InputLost: it is a bad one now, and all has to be done again.
  FileResult run(const std::filesystem::path& output);

 private:
  void expect_bytes();
  void run_integers();
  void run_whole();
  void run_per_tensor();
  void run_part(const Part& part);
  void solve(const Part& part, Solution& solution);
  void apply(const Part& part, Solution& solution);

  bool is_bad(int row) const;
  /// Of the rows that take part.
  std::vector<std::uint8_t> bad_rows() const;
  /// @throws Error too_many_nonfinite, nonfinite_pivot: bad inputs would decide the output.
  void check_bad(const Solution& solution, const TensorInfo* tensor) const;

  /// Reads the rows that are not bad; their bytes.
  std::uint64_t read(const Window& window, int slot, std::span<const int> rows, DType dtype);
  void count_read(std::uint64_t bytes);
  /// Nothing of the row has been used yet: it is infinite from the start.
  void drop(int row);
  void load(const Window& window, int slot, std::span<const int> rows, DType dtype);
  /// Of a window that both passes take from memory.
  void load_once(const Window& window);
  int slot_of(std::size_t window) const {
    return static_cast<int>(window % static_cast<std::size_t>(passes_->slots()));
  }
  OutTable target(const Window& window, int slot, Range pieces);
  void check_finite(const Window& window, int slot, Range pieces, const Solution& solution);
  void write(const Window& window, int slot, Range pieces);
  void check_narrowed(const Piece& piece, std::int64_t beyond) const;

  const FileOptions& options_;
  Inputs& inputs_;
  Engine engine_;
  int threads_;
  ActiveRows active_;
  OutputPlan output_;
  MemoryPlan memory_;
  std::unique_ptr<WindowPasses> passes_;
  std::optional<WindowReader> reader_;
  std::vector<int> all_rows_;       // that are read: the active ones that are not bad, then the base
  std::vector<int> integer_rows_;   // those with a vote in the median of integers
  std::vector<std::uint8_t> used_;  // per table row: some of it was read
  std::optional<OutputModel> file_;
  std::vector<void*> targets_;
  ProgressCounter& progress_;
  std::uint64_t& bytes_read_;
  FileResult result_;
};

FileAggregation::FileAggregation(const Pipeline& pipeline, Inputs& inputs,
                                 const std::filesystem::path& output, const FileOptions& options,
                                 ProgressCounter& progress, std::uint64_t& bytes_read)
    : options_(options),
      inputs_(inputs),
      engine_(pipeline, static_cast<int>(inputs_.rows.size()), options.options),
      threads_(options.options.threads > 0 ? options.options.threads : omp_get_max_threads()),
      progress_(progress),
      bytes_read_(bytes_read) {
  set_active_rows(options.weights, static_cast<int>(inputs_.rows.size()), options.options.max_weight_share,
                  active_);
  const int table_rows = static_cast<int>(active_.rows.size()) + (inputs_.base ? 1 : 0);
  for (int row = 0; row < table_rows; ++row) {
    if (!is_bad(row)) all_rows_.push_back(row);
  }
  for (std::size_t i = 0; i < active_.rows.size(); ++i) {  // an invalid weight is no weight
    if (!active_.invalid[i] && !is_bad(static_cast<int>(i))) integer_rows_.push_back(static_cast<int>(i));
  }
  if (options.integers == Integers::first) {
    if (inputs_.base) integer_rows_.assign(1, static_cast<int>(active_.rows.size()));
    if (integer_rows_.size() > 1) integer_rows_.erase(integer_rows_.begin() + 1, integer_rows_.end());
  }
  output_ = plan_output(inputs_, pipeline, output, options);

  result_.workers = inputs_.names;
  for (const std::size_t t : inputs_.integers) result_.integers += inputs_.tensors[t].elements;
  for (const std::size_t t : inputs_.floating) {
    result_.coordinates += inputs_.tensors[t].elements;
    result_.tensors.push_back(inputs_.tensors[t].name);
  }
  // Without coordinates no NaN tells that a row is infinite.
  for (std::size_t i = 0; i < active_.rows.size() && result_.coordinates == 0; ++i)
    active_.invalid[i] = active_.invalid[i] || is_bad(static_cast<int>(i));
  engine_.begin(active_, inputs_.base.has_value(), false, 0);
  memory_ = plan_memory(inputs_, output_, table_rows, engine_.square_bytes(), options);
  used_.assign(static_cast<std::size_t>(table_rows), result_.coordinates == 0);
  passes_ = options.options.device == Device::cuda
                ? make_cuda_passes(options.options, memory_.slot, result_.coordinates, active_.rows)
                : make_cpu_passes(engine_, memory_.slot);
  reader_.emplace(inputs_, active_.rows, memory_.slot.row_stride, *passes_, threads_);
}

FileResult FileAggregation::run(const std::filesystem::path& output) {
  check_output(output, inputs_);
  start_threads(threads_);
  file_.emplace(output, output_.layout);
  expect_bytes();
  check_bad({}, nullptr);
  run_integers();
  // A model without floating-point tensors is a row of no coordinates: it has a report too.
  if (options_.options.scope == Scope::whole || inputs_.floating.empty()) {
    run_whole();
  } else {
    run_per_tensor();
  }
  file_->commit();
  for (const InputRow& row : inputs_.rows) result_.bad.push_back(row.bad);
  result_.bytes_read = bytes_read_;
  return std::move(result_);
}

void FileAggregation::expect_bytes() {
  const int passes = engine_.needs_statistics() ? 2 : 1;
  progress_.set_passes(options_.options.scope == Scope::whole ? passes : 1);
  const auto expect = [&](std::span<const std::size_t> tensors, std::size_t times) {
    for (const std::size_t t : tensors)
      progress_.expect(static_cast<std::uint64_t>(inputs_.tensors[t].bytes) * times);
  };
  expect(inputs_.floating, all_rows_.size() * static_cast<std::size_t>(passes));
  expect(inputs_.integers, integer_rows_.size());
  progress_.advance(0);
}

void FileAggregation::run_integers() {
  if (inputs_.integers.empty()) return;
  std::vector<const void*> rows;
  for (const Window& window : memory_.cut(inputs_, inputs_.integers)) {
    if (integer_rows_.empty())
      throw Error(Status::invalid_argument, "weights: none is valid; integer tensors need at least 1");
    load(window, 0, integer_rows_, window.judged);
    check_bad({}, nullptr);
    if (integer_rows_.empty()) throw InputLost{};  // of the first one: another is first now
    rows.clear();
    for (const int row : integer_rows_) rows.push_back(reader_->row(0, static_cast<std::size_t>(row)));
    lower_median(*window.type, rows, window.elements, passes_->output(0), threads_);
    write(window, 0, {0, window.pieces.size()});
  }
}

void FileAggregation::run_whole() {
  const auto windows = memory_.cut(inputs_, inputs_.floating);
  Part part{.windows = windows,
            .loaded = windows.size() == 1 && windows.front().judged == windows.front().combined};
  if (part.loaded) {
    load_once(windows.front());
    part.pieces.count = windows.front().pieces.size();
  }
  run_part(part);
}

/// Tensors that fit into a window are solved and applied while they are there. What earlier tensors wrote is
/// gone with the temporary file should a later one fail.
void FileAggregation::run_per_tensor() {
  const auto windows = memory_.cut(inputs_, inputs_.floating);
  for (std::size_t w = 0; w < windows.size();) {
    const std::size_t t = windows[w].pieces.front().tensor;
    std::size_t end = w + 1;
    while (end < windows.size() && windows[end].pieces.front().tensor == t) ++end;
    Part part{.windows = {windows.data() + w, end - w}, .loaded = end == w + 1};
    const Window& window = windows[w];
    if (part.loaded) load_once(window);
    for (std::size_t k = 0; k < window.pieces.size(); ++k) {
      part.pieces = {k, 1};
      part.tensor = &inputs_.tensors[window.pieces[k].tensor];
      run_part(part);
    }
    w = end;
  }
}

void FileAggregation::run_part(const Part& part) {
  Solution solution;
  solve(part, solution);
  if (solution.status != Status::ok) throw_failure(solution, inputs_, engine_.pipeline(), part.tensor);
  check_bad(solution, part.tensor);
  progress_.enter_last_pass();
  apply(part, solution);
  check_bad(solution, part.tensor);
  for (std::size_t i = 0; i < solution.report.rows.size(); ++i) {
    if (inputs_.rows[i].bad.empty()) continue;
    RowReport& row = solution.report.rows[i];
    row.weight = 0;  // a rule by coordinate says what it was given
    row.selected = false;
  }
  result_.reports.push_back(std::move(solution.report));
}

void FileAggregation::solve(const Part& part, Solution& solution) {
  GramSums sums;
  bool again = false;
  solve_over(engine_, sums, solution, [&](GramSums& to) {
    if (again) progress_.expect(part.bytes() * all_rows_.size());
    again = true;
    for (std::size_t w = 0; w < part.windows.size(); ++w) {
      const Window& window = part.windows[w];
      const int slot = slot_of(w);
      if (!part.loaded) load(window, slot, all_rows_, window.judged);
      passes_->accumulate(slot, reader_->table(window, slot, part.pieces_of(window), window.judged), to);
    }
    passes_->collect(to);
  });
}

void FileAggregation::apply(const Part& part, Solution& solution) {
  std::vector<int> rows;
  std::copy_if(all_rows_.begin(), all_rows_.end(), std::back_inserter(rows),
               [&](int row) { return Engine::reads_row(solution, row); });
  progress_.skip((all_rows_.size() - rows.size()) * part.bytes());
  // A window is written when its slot is needed again: others are computed meanwhile.
  const auto write_window = [&](std::size_t w) {
    passes_->wait(slot_of(w));
    check_finite(part.windows[w], slot_of(w), part.pieces_of(part.windows[w]), solution);
    write(part.windows[w], slot_of(w), part.pieces_of(part.windows[w]));
  };
  const std::size_t windows = part.windows.size();
  const auto slots = static_cast<std::size_t>(passes_->slots());
  passes_->start(solution);
  for (std::size_t w = 0; w < windows; ++w) {
    const Window& window = part.windows[w];
    const int slot = slot_of(w);
    const Range pieces = part.pieces_of(window);
    if (w >= slots) write_window(w - slots);
    if (!part.loaded) load(window, slot, rows, window.combined);
    passes_->apply(slot, reader_->table(window, slot, pieces, window.combined), target(window, slot, pieces),
                   solution);
  }
  for (std::size_t w = windows - std::min(slots, windows); w < windows; ++w) write_window(w);
  passes_->finish(solution);
}

bool FileAggregation::is_bad(int row) const {
  const auto i = static_cast<std::size_t>(row);
  return i < active_.rows.size() && !inputs_.rows[static_cast<std::size_t>(active_.rows[i])].bad.empty();
}

std::vector<std::uint8_t> FileAggregation::bad_rows() const {
  std::vector<std::uint8_t> bad;
  for (std::size_t i = 0; i < active_.rows.size(); ++i) bad.push_back(is_bad(static_cast<int>(i)));
  return bad;
}

void FileAggregation::check_bad(const Solution& solution, const TensorInfo* tensor) const {
  check_pivot(inputs_, engine_.pipeline());
  if (!bad_decide(solution, bad_rows())) return;
  Solution failed;
  failed.status = Status::too_many_nonfinite;
  throw_failure(failed, inputs_, engine_.pipeline(), tensor);
}

std::uint64_t FileAggregation::read(const Window& window, int slot, std::span<const int> rows, DType dtype) {
  std::vector<int> good;
  std::copy_if(rows.begin(), rows.end(), std::back_inserter(good), [&](int row) { return !is_bad(row); });
  const WindowReader::Failures failures = reader_->load(window, slot, good, dtype);
  bool lost = false;
  for (const auto& [row, error] : failures) {
    const auto i = static_cast<std::size_t>(row);
    const bool alone = inputs_.models.size() == 1 || options_.bad_inputs == BadInputs::error;
    if (alone || i == active_.rows.size() || !is_bad_input(error)) throw error;
    lost = lost || used_[i] != 0;
  }
  for (const auto& [row, error] : failures) {
    const auto i = static_cast<std::size_t>(active_.rows[static_cast<std::size_t>(row)]);
    inputs_.rows[i].bad = reason_of(error, inputs_.names[i]);
    if (options_.found_bad) options_.found_bad(i, inputs_.names[i], inputs_.rows[i].bad);
    if (!lost) drop(row);
  }
  if (lost) throw InputLost{};
  for (const int row : good) used_[static_cast<std::size_t>(row)] = 1;
  return window.bytes() * (good.size() - failures.size());
}

void FileAggregation::drop(int row) {
  reader_->make_infinite(row);
  const auto skip = [&](std::vector<int>& rows, std::span<const std::size_t> tensors, std::size_t times) {
    if (std::erase(rows, row) == 0) return;
    for (const std::size_t t : tensors)
      progress_.skip(static_cast<std::uint64_t>(inputs_.tensors[t].bytes) * times);
  };
  skip(all_rows_, inputs_.floating, engine_.needs_statistics() ? 2 : 1);
  skip(integer_rows_, inputs_.integers, 1);
}

void FileAggregation::count_read(std::uint64_t bytes) {
  bytes_read_ += bytes;
  progress_.advance(bytes);
}

void FileAggregation::load(const Window& window, int slot, std::span<const int> rows, DType dtype) {
  count_read(read(window, slot, rows, dtype));
}

void FileAggregation::load_once(const Window& window) {
  const std::uint64_t bytes = read(window, 0, all_rows_, window.combined);
  if (engine_.needs_statistics()) progress_.skip(all_rows_.size() * window.bytes());
  count_read(bytes);
}

OutTable FileAggregation::target(const Window& window, int slot, Range pieces) {
  const DType dtype = window.made();
  targets_.clear();
  std::byte* to = passes_->output(slot);
  for (const Piece& piece : window.some(pieces)) {
    targets_.push_back(to);
    to += piece.size() * static_cast<std::int64_t>(size_of(dtype));
  }
  return {.dtype = dtype, .data = targets_.data()};
}

void FileAggregation::check_finite(const Window& window, int slot, Range pieces, const Solution& solution) {
  const std::byte* from = passes_->output(slot);
  for (const Piece& piece : window.some(pieces)) {
    const std::int64_t nonfinite = count_nonfinite(window.made(), from, piece.size());
    if (nonfinite > 0 && !options_.allow_nonfinite)
      throw_nonfinite_output(solution, inputs_, engine_.pipeline(), inputs_.tensors[piece.tensor]);
    result_.nonfinite += nonfinite;
    from += piece.size() * static_cast<std::int64_t>(size_of(window.made()));
  }
}

void FileAggregation::write(const Window& window, int slot, Range pieces) {
  const bool floating = window.type->kind == ElementKind::floating;
  const std::int64_t size = window.out->bytes;
  const auto made = floating ? static_cast<std::int64_t>(size_of(window.made())) : size;
  std::byte* from = passes_->output(slot);
  for (const Piece& piece : window.some(pieces)) {
    if (made == 8 && floating) check_narrowed(piece, narrow(from, piece.size(), *window.out));
    file_->write(piece.tensor, piece.begin * size, from, piece.size() * size);
    from += piece.size() * made;
  }
}

/// A value that is too large for its type must not become infinity or NaN in silence.
void FileAggregation::check_narrowed(const Piece& piece, std::int64_t beyond) const {
  if (beyond == 0) return;
  const TensorInfo& tensor = output_.tensors[piece.tensor];
  throw Error(
      Status::invalid_argument,
      fmt::format("out_dtype = {}: {} of the values of tensor {} are too large for it; take a wider one",
                  tensor.dtype, beyond, show(tensor.name)));
}

}  // namespace

FileResult aggregate_files(const Pipeline& pipeline, std::span<const std::filesystem::path> inputs,
                           const std::filesystem::path& output, const FileOptions& options) {
  try {
    Inputs opened = open_inputs(inputs, options.base, options.bad_inputs);
    for (std::size_t i = 0; i < opened.rows.size() && options.found_bad; ++i) {
      if (!opened.rows[i].bad.empty()) options.found_bad(i, opened.names[i], opened.rows[i].bad);
    }
    check_integers(opened, options.integers);
    ProgressCounter progress(options);
    std::uint64_t bytes_read = 0;
    for (;;) {  // at most once for each input that is lost
      try {
        return FileAggregation(pipeline, opened, output, options, progress, bytes_read).run(output);
      } catch (const InputLost&) {
        progress.restart();
      }
    }
  } catch (const std::bad_alloc&) {
    throw Error(Status::out_of_memory,
                fmt::format("an allocation failed with memory = {} bytes for {} inputs", options.memory,
                            inputs.size()));
  }
}

}  // namespace v0
}  // namespace bragg
