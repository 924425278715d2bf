// SPDX-License-Identifier: Apache-2.0
// The passes over threads: who takes which block of coordinates, and in which order sums are added.
#include "host/cpu/passes.hpp"

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <new>
#include <thread>
#include <utility>

#include "host/base/team.hpp"
#include "host/cpu/kernels.hpp"
#include "host/cpu/selection.hpp"
#include "rules/floating_environment.hpp"

namespace bragg::detail {
namespace {

using cpu::RowSource;

/// Above this many rows a block's sums do not fit a thread's cache: threads share a block's pairs instead of
/// taking blocks of their own. A function of the shape only, because it decides how sums are grouped.
constexpr int most_rows_per_thread = 256;
/// Block sums that may wait for those before them: their memory, and how many at most.
constexpr std::size_t ring_doubles = std::size_t{1} << 19;
constexpr std::size_t most_slots = 1024;
/// Rows and columns of a square of pairs whose sums and stretches are in one thread's L2.
constexpr int square_rows = 48;
/// Coordinates that a thread takes at a time in combine and select.
constexpr std::int64_t chunk_size = 16384;

/// Aligned memory that only grows.
class Arena {
 public:
  Arena() = default;
  Arena(Arena&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  Arena& operator=(Arena&&) = delete;
  ~Arena() { std::free(data_); }

  unsigned char* bytes(std::size_t wanted) {
    if (wanted > bytes_) {
      const std::size_t rounded = (wanted + cpu::vector_bytes - 1) / cpu::vector_bytes * cpu::vector_bytes;
      void* fresh = std::aligned_alloc(cpu::vector_bytes, rounded);
      if (fresh == nullptr) throw std::bad_alloc();
      std::free(data_);
      data_ = fresh;
      bytes_ = rounded;
    }
    return static_cast<unsigned char*>(data_);
  }
  double* doubles(std::size_t wanted) { return reinterpret_cast<double*>(bytes(wanted * sizeof(double))); }

 private:
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
};

/// Walks the blocks of all tensors; `advance` only goes forward.
class Blocks {
 public:
  Blocks(std::span<const std::int64_t> sizes, std::int64_t length) : sizes_(sizes), length_(length) {}

  std::int64_t count() const noexcept {
    std::int64_t total = 0;
    for (const std::int64_t elements : sizes_) total += blocks_of(elements);
    return total;
  }

  void advance(std::int64_t index) noexcept {
    while (index >= first_ + blocks_of(sizes_[tensor])) first_ += blocks_of(sizes_[tensor++]);
    begin = (index - first_) * length_;
    size = std::min(length_, sizes_[tensor] - begin);
  }

  std::size_t tensor = 0;
  std::int64_t begin = 0;
  std::int64_t size = 0;

 private:
  std::int64_t blocks_of(std::int64_t elements) const noexcept { return (elements + length_ - 1) / length_; }

  std::span<const std::int64_t> sizes_;
  std::int64_t length_;
  std::int64_t first_ = 0;  // index of the tensor's first block
};

RowSource source(const RowTable& table, std::size_t tensor, int row) {
  const void* data =
      table.data[tensor * static_cast<std::size_t>(table.rows) + static_cast<std::size_t>(row)];
  return {static_cast<const unsigned char*>(data), table.dtype_of(row)};
}

/// Zeros that stand for those of a row without data, about a centre.
alignas(cpu::vector_bytes) unsigned char zeros[gram_block * sizeof(double)];

struct Worker {
  Arena memory;
  Arena center;
  std::vector<RowSource> rows;
  std::vector<RowSource> median_rows;
  std::vector<int> index;  // table row of each of `rows`
  std::vector<double> coefficients;
  std::vector<unsigned char*> outputs;
  std::vector<std::int64_t> nonfinite;
  std::vector<double> max_abs;

  /// Room for a table's rows, so that nothing is allocated while threads run.
  void prepare(int count) {
    rows.reserve(static_cast<std::size_t>(count));
    median_rows.reserve(static_cast<std::size_t>(count));
    index.reserve(static_cast<std::size_t>(count));
    coefficients.reserve(static_cast<std::size_t>(count));
    outputs.reserve(static_cast<std::size_t>(count));
    // One more, for what nobody wants to know.
    nonfinite.assign(static_cast<std::size_t>(count) + 1, 0);
    max_abs.assign(static_cast<std::size_t>(count) + 1, 0);
  }

  /// The tensor's rows, without those of zeros, or with them.
  void gather(const RowTable& table, std::size_t tensor, bool with_zeros) {
    rows.clear();
    index.clear();
    for (int r = 0; r < table.rows; ++r) {
      RowSource row = source(table, tensor, r);
      if (row.data == nullptr) {
        if (!with_zeros) continue;
        row = {.data = zeros, .dtype = row.dtype, .zeros = true};
      }
      rows.push_back(row);
      index.push_back(r);
    }
  }

  /// Of the gathered rows, `count` from `first`, or as many as there are.
  cpu::GramRows gram_rows(int first = 0, int count = std::numeric_limits<int>::max()) {
    return {.rows = rows.data() + first,
            .index = index.data() + first,
            .count = std::min(count, static_cast<int>(rows.size()) - first),
            .nonfinite = nonfinite.data(),
            .max_abs = max_abs.data()};
  }
};

}  // namespace

/// A running sum's additions, and those of the sums.
double gram_f64_rounding(bool centered) noexcept {
  return gram_rounding(gram_block / cpu::gram_lanes + cpu::gram_lanes + (centered ? 2 : 0));
}

std::int64_t leaf_blocks_of(std::span<const std::int64_t> sizes) {
  constexpr std::int64_t most_leaves = 1024;
  const std::int64_t blocks = Blocks(sizes, gram_block).count();
  std::int64_t length = 1;
  while (length * most_leaves < blocks) length *= 2;
  return length;
}

std::vector<std::size_t> gram_entries(int rows, int inputs, bool pairs) {
  std::vector<std::size_t> entries;
  for (int r = 0; r < rows; ++r) {
    for (int c = 0; c <= r; ++c) {
      if (pairs || c == r || r >= inputs) {
        entries.push_back(static_cast<std::size_t>(r) * static_cast<std::size_t>(rows) +
                          static_cast<std::size_t>(c));
      }
    }
  }
  return entries;
}

void GramSums::end_block(bool ends_tensor) {
  if (!has_leaves()) return;
  if (++in_leaf_ < leaf_blocks && !ends_tensor) return;
  if (records != nullptr) {
    for (const std::size_t at : records->entries) records->values.push_back(leaf_[at]);
    for (const std::size_t at : records->entries) {
      if (leaf_blocks > 1) records->values.push_back(leaf_low_[at]);
    }
  } else {
    for (std::size_t at = 0; at < products.size(); ++at) add(at, leaf_[at], leaf_low_[at]);
  }
  std::fill(leaf_.begin(), leaf_.end(), 0.0);
  std::fill(leaf_low_.begin(), leaf_low_.end(), 0.0);
  in_leaf_ = 0;
}

void GramSums::reserve_records(std::span<const std::int64_t> sizes) {
  if (records == nullptr) return;
  std::int64_t leaves = 1;  // that may have begun before
  for (const std::int64_t size : sizes)
    leaves += (size + leaf_blocks * gram_block - 1) / (leaf_blocks * gram_block);
  const std::size_t each = records->entries.size() * (leaf_blocks > 1 ? 2 : 1);
  records->values.reserve(records->values.size() + static_cast<std::size_t>(leaves) * each);
}

void GramSums::reset(int rows_in, bool wanted_in, double scale_in, bool pairs_in) {
  rows = rows_in;
  wanted = wanted_in;
  pairs = pairs_in;
  scale = scale_in;
  limit = 0x1p500;
  wide = false;
  f32 = false;
  round = 0;
  distance_error = 0;
  const std::size_t n = static_cast<std::size_t>(rows);
  products.assign(wanted ? n * n : 0, 0.0);
  low.assign(products.size(), 0.0);
  leaf_.assign(has_leaves() ? products.size() : 0, 0.0);
  leaf_low_.assign(leaf_.size(), 0.0);
  in_leaf_ = 0;
  if (records != nullptr) records->values.clear();
  center.kind = GramCenter::Kind::none;
  rounding = 0;
  nonfinite.assign(n, 0);
  max_abs.assign(n, 0.0);
}

void GramSums::reset_for(const GramSums& whole) {
  reset(whole.rows, whole.wanted, whole.scale, whole.pairs);
  center = whole.center;
  limit = whole.limit;
  round = whole.round;
  coordinates = whole.coordinates;
  samples = round == 0 ? whole.samples : RowSamples{};
}

struct CpuPasses::Impl {
  int threads;
  std::vector<Worker> workers;
  Arena shared;
  std::unique_ptr<std::atomic<std::int64_t>[]> ready;  // the block whose sums a slot of gram's ring holds
  std::size_t ready_size = 0;

  cpu::Selection selection;

  // The centre of gram.
  cpu::Selection median_selection;
  cpu::SelectJob median;
  std::vector<int> median_rows;
  std::vector<double> median_weights;

  Impl(int max_rows, int threads_in) : threads(threads_of(threads_in)) {
    workers.resize(static_cast<std::size_t>(threads));
    for (Worker& worker : workers) worker.prepare(max_rows);
  }

  /// As many as there is work for: waking another costs as much as reading `worthwhile` values.
  int threads_for(const RowTable& table, std::int64_t blocks) const {
    constexpr std::int64_t worthwhile = 1 << 16;
    std::int64_t values = 0;
    for (const std::int64_t elements : table.sizes) values += elements * table.rows;
    return static_cast<int>(std::clamp<std::int64_t>(std::min(blocks, values / worthwhile), 1, threads));
  }

  /// body(worker, block) for every block, on as many threads as there is work for; blocks are taken in order.
  template <class BodyT>
  void for_blocks(const RowTable& table, std::int64_t length, const BodyT& body) {
    const std::int64_t count = Blocks(table.sizes, length).count();
    if (count == 0) return;
    std::atomic<std::int64_t> next{0};
#pragma omp parallel num_threads(team(threads_for(table, count)))
    {
      const FloatingEnvironment environment;
      Worker& worker = workers[static_cast<std::size_t>(omp_get_thread_num())];
      Blocks block(table.sizes, length);
      std::size_t tensor = static_cast<std::size_t>(-1);
      for (std::int64_t k = next++; k < count; k = next++) {
        block.advance(k);
        body(worker, block, k, block.tensor != tensor);
        tensor = block.tensor;
      }
    }
  }

  template <class ComputeT, class AddT>
  void sum_blocks(const RowTable& table, GramSums& sums, std::size_t doubles, const ComputeT& compute,
                  const AddT& add);

  void prepare_center(const RowTable& table, const GramCenter& center);
  /// Elements [begin, begin+count) of the centre to `to`, zeros up to a multiple of gram_lanes.
  void find_center(const RowTable& table, const GramCenter& center, std::size_t tensor, std::int64_t begin,
                   int count, Worker& worker, double* to) const;
  const double* center_of(const RowTable& table, const GramCenter& center, const Blocks& block,
                          Worker& worker) const;

  void gram_statistics(const RowTable& table);
  void gram_by_blocks(const RowTable& table, GramSums& sums);
  void gram_of_references(const RowTable& table, GramSums& sums);
  void gram_by_squares(const RowTable& table, GramSums& sums);
};

// gram --------------------------------------------------------------------------------------------

namespace {

/// GramSums::rounding of products in f32: a running sum's additions, and those of four neighbours. The rest
/// is f64's.
constexpr double f32_rounding = [] {
  const int additions = cpu::gram_f32_depth / cpu::gram_f32_lanes + 2;
  return additions * 0x1.01p-24 + gram_rounding(128);
}();

bool is_centered(const GramSums& sums) { return sums.center.kind != GramCenter::Kind::none; }

/// A block was added; it may have been its tensor's last.
void end_block(const RowTable& table, std::size_t tensor, bool last, GramSums& sums) {
  sums.end_block(last && !(table.unfinished && tensor + 1 == table.sizes.size()));
  if (last && sums.ended) sums.ended(tensor);
}

/// GramSums::two_sum of values side by side: vectors of them.
void add_all(double* __restrict products, double* __restrict low, const double* __restrict values,
             std::size_t count) {
  for (std::size_t k = 0; k < count; ++k) {
    const double before = products[k];
    const double total = before + values[k];
    const double taken = total - before;
    low[k] += (before - (total - taken)) + (values[k] - taken);
    products[k] = total;
  }
}

}  // namespace

void CpuPasses::Impl::prepare_center(const RowTable& table, const GramCenter& center) {
  std::size_t scratch = 0;
  if (center.kind == GramCenter::Kind::median) {
    median_rows.clear();
    median_weights.clear();
    for (int i = 0; i < table.inputs; ++i) {
      const auto k = static_cast<std::size_t>(i);
      if (center.left_out[k] != 0) continue;
      median_rows.push_back(i);
      if (!center.weights.empty()) median_weights.push_back(center.weights[k]);
    }
    const PointTable points{.count = static_cast<int>(median_rows.size()),
                            .rows = median_rows,
                            .mix = {},
                            .infinite = {},
                            .weights = median_weights};
    const SelectRule rule{.kind = SelectRule::Kind::median, .even = EvenMedian::lower};
    median = median_selection.prepare(table, rule, points, false);
    scratch = cpu::select_scratch_bytes(median);
  }
  for (Worker& worker : workers) worker.center.bytes(2 * gram_block * sizeof(double) + scratch);
}

void CpuPasses::Impl::find_center(const RowTable& table, const GramCenter& center, std::size_t tensor,
                                  std::int64_t begin, int count, Worker& worker, double* to) const {
  RowSource found = source(table, tensor, center.row);
  std::int64_t at = begin;
  if (center.kind == GramCenter::Kind::median) {
    // A lower median is a value of a row: the rows' own type holds it.
    unsigned char* const values = worker.center.bytes(0) + gram_block * sizeof(double);
    unsigned char* const out[] = {values};
    worker.median_rows.clear();
    for (int r = 0; r < table.rows; ++r) {
      RowSource row = source(table, tensor, r);
      if (row.data != nullptr) row.data = row.at(begin);
      worker.median_rows.push_back(row);
    }
    cpu::select_chunk(median, worker.median_rows.data(), 0, count, table.dtype, out, nullptr,
                      values + gram_block * sizeof(double));
    found = {.data = values, .dtype = table.dtype};
    at = 0;
  }
  if (found.data == nullptr) found = {.data = zeros, .dtype = found.dtype, .zeros = true};
  cpu::center_values(found, at, count, to);
}

const double* CpuPasses::Impl::center_of(const RowTable& table, const GramCenter& center, const Blocks& block,
                                         Worker& worker) const {
  if (center.kind == GramCenter::Kind::none) return nullptr;
  double* const to = worker.center.doubles(0);
  find_center(table, center, block.tensor, block.begin, static_cast<int>(block.size), worker, to);
  return to;
}

void CpuPasses::Impl::gram_statistics(const RowTable& table) {
  for_blocks(table, gram_block, [&](Worker& worker, const Blocks& block, std::int64_t, bool new_tensor) {
    if (new_tensor) worker.gather(table, block.tensor, false);
    for (std::size_t r = 0; r < worker.rows.size(); ++r) {
      const std::size_t row = static_cast<std::size_t>(worker.index[r]);
      cpu::row_statistics(worker.rows[r], block.begin, static_cast<int>(block.size), worker.nonfinite[row],
                          worker.max_abs[row]);
    }
  });
}

/// compute(worker, block, sum) for each block, on any thread; add(sum) of all `doubles` in the blocks' order,
/// which `sums` is told of. Sums wait in a ring until those of
/// all blocks before are in, so a thread that the system holds up does not hold up the others.
template <class ComputeT, class AddT>
void CpuPasses::Impl::sum_blocks(const RowTable& table, GramSums& sums, std::size_t doubles,
                                 const ComputeT& compute, const AddT& add) {
  const bool with_zeros = is_centered(sums);
  const std::int64_t blocks = Blocks(table.sizes, gram_block).count();
  const std::size_t slots = std::min(std::clamp<std::size_t>(ring_doubles / std::max<std::size_t>(doubles, 1),
                                                             static_cast<std::size_t>(threads), most_slots),
                                     static_cast<std::size_t>(std::max<std::int64_t>(blocks, 1)));
  double* ring = shared.doubles(slots * doubles);
  if (ready_size < slots) {
    ready = std::make_unique<std::atomic<std::int64_t>[]>(slots);
    ready_size = slots;
  }
  for (std::size_t slot = 0; slot < slots; ++slot) ready[slot].store(-1, std::memory_order_relaxed);
  std::atomic<std::int64_t> merged{0};
  std::atomic<bool> merging{false};
  const auto slot_of = [&](std::int64_t k) { return static_cast<std::size_t>(k) % slots; };
  const auto is_ready = [&](std::int64_t k) { return ready[slot_of(k)].load() == k; };
  Blocks added(table.sizes, gram_block);
  const auto add_next = [&](std::int64_t k) {
    add(ring + slot_of(k) * doubles);
    added.advance(k);
    end_block(table, added.tensor, added.begin + added.size == table.sizes[added.tensor], sums);
  };
  const auto merge = [&] {
    do {
      if (merging.exchange(true)) return;  // whoever merges now looks again afterwards
      for (std::int64_t k = merged; is_ready(k); merged = ++k) add_next(k);
      merging = false;
    } while (is_ready(merged));
  };

  for_blocks(table, gram_block, [&](Worker& worker, const Blocks& block, std::int64_t k, bool new_tensor) {
    if (new_tensor) worker.gather(table, block.tensor, with_zeros);
    while (k - merged >= static_cast<std::int64_t>(slots)) std::this_thread::yield();
    double* const sum = ring + slot_of(k) * doubles;
    std::fill_n(sum, doubles, 0.0);
    compute(worker, block, sum);
    ready[slot_of(k)] = k;
    merge();
  });
}

// Each thread takes whole blocks.
void CpuPasses::Impl::gram_by_blocks(const RowTable& table, GramSums& sums) {
  const std::size_t n = static_cast<std::size_t>(table.rows);
  const std::size_t pairs = n * (n + 1) / 2;
  const std::size_t scratch =
      std::max(cpu::gram_scratch_doubles(table.rows, 0), cpu::gram_f32_scratch_doubles(table.rows));
  for (Worker& worker : workers) worker.memory.doubles(scratch + pairs);
  const auto compute = [&](Worker& worker, const Blocks& block, double* sum) {
    double* const memory = worker.memory.doubles(scratch + pairs);
    const double* total = memory + scratch;
    const auto length = static_cast<int>(block.size);
    if (sums.f32) {
      cpu::gram_products_f32(worker.gram_rows(), block.begin, length, memory, memory + scratch);
    } else {
      cpu::gram_products(worker.gram_rows(), nullptr, block.begin, length, sums.scale,
                         center_of(table, sums.center, block, worker), memory, memory + scratch);
    }
    for (const int i : worker.index) {
      double* const row = sum + static_cast<std::size_t>(i) * (static_cast<std::size_t>(i) + 1) / 2;
      for (const int j : worker.index) {
        if (j > i) break;
        row[j] = *total++;
      }
    }
  };
  const auto add = [&](const double* sum) {
    for (std::size_t r = 0; r < n; sum += ++r) {
      add_all(sums.open_products() + r * n, sums.open_low() + r * n, sum, r + 1);
    }
  };
  sum_blocks(table, sums, pairs, compute, add);
}

// Products with references alone: a few rows and the references at a time.
void CpuPasses::Impl::gram_of_references(const RowTable& table, GramSums& sums) {
  constexpr int together = 4;
  constexpr int most_references = 2;
  constexpr int most = together + most_references;
  constexpr std::size_t triangle = most * (most + 1) / 2;
  const std::size_t n = static_cast<std::size_t>(table.rows);
  const std::size_t first = static_cast<std::size_t>(table.inputs);  // reference
  const std::size_t width = 1 + (n - first);                         // a row's square, and by each reference
  const std::size_t scratch = cpu::gram_scratch_doubles(most, 0);
  for (Worker& worker : workers) worker.memory.doubles(scratch + triangle);

  const auto compute = [&](Worker& worker, const Blocks& block, double* sum) {
    double* const memory = worker.memory.doubles(scratch + triangle);
    const auto rows = static_cast<int>(worker.rows.size());
    const auto inputs = static_cast<int>(
        std::lower_bound(worker.index.begin(), worker.index.end(), table.inputs) - worker.index.begin());
    const double* const center = center_of(table, sums.center, block, worker);
    // `here` rows from `begin`, and all references. What is noted of those counts once, where they are alone.
    const auto take_panel = [&](int begin, int here) {
      RowSource sources[most];
      int index[most];
      int noted[most];
      int count = 0;
      const auto take = [&](int at, bool is_noted) {
        sources[count] = worker.rows[static_cast<std::size_t>(at)];
        index[count] = worker.index[static_cast<std::size_t>(at)];
        noted[count] = is_noted ? index[count] : table.rows;
        ++count;
      };
      for (int k = 0; k < here; ++k) take(begin + k, true);
      for (int k = inputs; k < rows; ++k) take(k, here == 0);
      const cpu::GramRows panel{.rows = sources,
                                .index = noted,
                                .count = count,
                                .nonfinite = worker.nonfinite.data(),
                                .max_abs = worker.max_abs.data()};
      double* const totals = memory + scratch;
      cpu::gram_products(panel, nullptr, block.begin, static_cast<int>(block.size), sums.scale, center,
                         memory, totals);
      const auto total = [&](int r, int c) { return totals[r * (r + 1) / 2 + c]; };
      for (int r = 0; r < (here > 0 ? here : count); ++r) {
        double* const to = sum + static_cast<std::size_t>(index[r]) * width;
        to[0] = total(r, r);
        for (int c = std::max(here, r + 1); c < count; ++c) {
          to[1 + static_cast<std::size_t>(index[c]) - first] = total(c, r);
        }
      }
    };
    for (int begin = 0; begin < inputs; begin += together) {
      take_panel(begin, std::min(together, inputs - begin));
    }
    if (inputs < rows) take_panel(inputs, 0);
  };
  const std::size_t doubles = static_cast<std::size_t>(table.rows) * width;
  const auto add = [&](const double* sum) {
    double* const products = sums.open_products();
    double* const low = sums.open_low();
    for (std::size_t r = 0; r < n; ++r, sum += width) {
      GramSums::two_sum(products[r * n + r], low[r * n + r], sum[0]);
      for (std::size_t c = std::max(first, r + 1); c < n; ++c)
        GramSums::two_sum(products[c * n + r], low[c * n + r], sum[1 + c - first]);
    }
  };
  sum_blocks(table, sums, doubles, compute, add);
}

namespace {

/// Squares of pairs that so many rows make.
constexpr int squares_of(int rows) {
  const int side = (rows + square_rows - 1) / square_rows;
  return side * (side + 1) / 2;
}

}  // namespace

// All threads share the pairs of one block after another, a square of them at a time.
void CpuPasses::Impl::gram_by_squares(const RowTable& table, GramSums& sums) {
  const std::size_t scratch = cpu::gram_scratch_doubles(square_rows, square_rows);
  constexpr std::size_t pairs = std::size_t{square_rows} * square_rows;
  for (Worker& worker : workers) worker.memory.doubles(scratch + pairs);
  const bool centered = is_centered(sums);
  double* const center = shared.doubles(gram_block);
  double* const products = sums.open_products();
  double* const low = sums.open_low();
#pragma omp parallel num_threads(team(threads_for(table, squares_of(table.rows))))
  {
    const FloatingEnvironment environment;
    Worker& worker = workers[static_cast<std::size_t>(omp_get_thread_num())];
    double* const memory = worker.memory.doubles(scratch + pairs);
    for (std::size_t tensor = 0; tensor < table.sizes.size(); ++tensor) {
      worker.gather(table, tensor, centered);
      const int squares = squares_of(static_cast<int>(worker.rows.size()));
      for (std::int64_t begin = 0; begin < table.sizes[tensor]; begin += gram_block) {
        const int length = static_cast<int>(std::min(gram_block, table.sizes[tensor] - begin));
        constexpr int slice = 512;
#pragma omp for schedule(dynamic)
        for (int at = 0; at < (centered ? length : 0); at += slice) {
          find_center(table, sums.center, tensor, begin + at, std::min(slice, length - at), worker,
                      center + at);
        }
#pragma omp for schedule(dynamic)
        for (int pair = 0; pair < squares; ++pair) {
          int row = 0;
          while ((row + 1) * (row + 2) / 2 <= pair) ++row;
          const int column = pair - row * (row + 1) / 2;
          const cpu::GramRows rows = worker.gram_rows(row * square_rows, square_rows);
          const cpu::GramRows columns = worker.gram_rows(column * square_rows, square_rows);
          const bool diagonal = row == column;
          const double* total = memory + scratch;
          cpu::gram_products(rows, diagonal ? nullptr : &columns, begin, length, sums.scale,
                             centered ? center : nullptr, memory, memory + scratch);
          for (int i = 0; i < rows.count; ++i) {
            const auto to = static_cast<std::size_t>(rows.index[i]) * static_cast<std::size_t>(table.rows);
            for (int j = 0; j < (diagonal ? i + 1 : columns.count); ++j)
              GramSums::two_sum(products[to + static_cast<std::size_t>(columns.index[j])],
                                low[to + static_cast<std::size_t>(columns.index[j])], *total++);
          }
        }
#pragma omp single
        end_block(table, tensor, begin + length == table.sizes[tensor], sums);
      }
    }
  }
}

void CpuPasses::gram(const RowTable& table, GramSums& sums) {
  Impl& impl = *impl_;
  for (Worker& worker : impl.workers) worker.prepare(table.rows);
  sums.wide = sums.wide || table.dtype == DType::f64;
  sums.reserve_records(table.sizes);
  if (is_centered(sums)) impl.prepare_center(table, sums.center);
  if (!sums.wanted) {
    impl.gram_statistics(table);
  } else if (!sums.pairs) {
    impl.gram_of_references(table, sums);
  } else if (table.rows <= most_rows_per_thread) {
    impl.gram_by_blocks(table, sums);
  } else {
    impl.gram_by_squares(table, sums);
  }
  const std::size_t n = static_cast<std::size_t>(table.rows);
  for (const Worker& worker : impl.workers) {
    for (std::size_t r = 0; r < n; ++r) {
      sums.nonfinite[r] += worker.nonfinite[r];
      sums.max_abs[r] = std::max(sums.max_abs[r], worker.max_abs[r]);
    }
  }
  if (!sums.wanted) return;
  sums.rounding = sums.f32 ? f32_rounding : gram_f64_rounding(is_centered(sums));
  for (std::size_t r = 0; r < n; ++r) {
    for (std::size_t c = 0; c < r; ++c) {
      sums.products[c * n + r] = sums.products[r * n + c];
      sums.low[c * n + r] = sums.low[r * n + c];
    }
  }
}

// combine -----------------------------------------------------------------------------------------

void CpuPasses::combine(const RowTable& table, std::span<const double> coefficients, const OutTable& out,
                        std::span<std::int64_t> nonfinite) {
  Impl& impl = *impl_;
  for (Worker& worker : impl.workers) {
    worker.prepare(table.rows);
    worker.memory.doubles(cpu::combine_tile);
  }
  impl.for_blocks(table, chunk_size, [&](Worker& worker, const Blocks& block, std::int64_t, bool new_tensor) {
    if (new_tensor) {
      worker.rows.clear();
      worker.index.clear();
      worker.coefficients.clear();
      for (int r = 0; r < table.rows; ++r) {
        const double coefficient = coefficients[static_cast<std::size_t>(r)];
        const RowSource row = source(table, block.tensor, r);
        if (coefficient == 0 || row.data == nullptr) continue;
        worker.rows.push_back(row);
        worker.index.push_back(r);
        worker.coefficients.push_back(coefficient);
      }
    }
    cpu::combine_chunk(worker.rows.data(), worker.coefficients.data(), worker.index.data(),
                       static_cast<int>(worker.rows.size()), block.begin, block.size, out.dtype,
                       static_cast<unsigned char*>(out.data[block.tensor]),
                       nonfinite.empty() ? nullptr : worker.nonfinite.data(),
                       worker.memory.doubles(cpu::combine_tile));
  });
  for (std::size_t r = 0; r < nonfinite.size(); ++r) {
    for (const Worker& worker : impl.workers) nonfinite[r] += worker.nonfinite[r];
  }
}

// select ------------------------------------------------------------------------------------------

void CpuPasses::select(const RowTable& table, const SelectRule& rule, const PointTable& points,
                       const OutTable& out, std::span<std::int64_t> nonfinite) {
  Impl& impl = *impl_;
  const cpu::SelectJob job = impl.selection.prepare(table, rule, points, !nonfinite.empty());
  const std::size_t scratch = cpu::select_scratch_bytes(job);
  for (Worker& worker : impl.workers) {
    worker.prepare(table.rows);
    worker.memory.bytes(scratch);
  }
  const int outputs = rule.kind == SelectRule::Kind::none ? points.count : 1;
  impl.for_blocks(table, chunk_size, [&](Worker& worker, const Blocks& block, std::int64_t, bool new_tensor) {
    if (new_tensor) {
      worker.rows.clear();
      for (int r = 0; r < table.rows; ++r) worker.rows.push_back(source(table, block.tensor, r));
      worker.outputs.clear();
      for (std::size_t p = 0; p < static_cast<std::size_t>(outputs); ++p) {
        worker.outputs.push_back(static_cast<unsigned char*>(out.data[p * out.stride + block.tensor]));
      }
    }
    cpu::select_chunk(job, worker.rows.data(), block.begin, block.size, out.dtype, worker.outputs.data(),
                      worker.nonfinite.data(), worker.memory.bytes(scratch));
  });
  for (std::size_t r = 0; r < nonfinite.size(); ++r) {
    for (const Worker& worker : impl.workers) nonfinite[r] += worker.nonfinite[r];
  }
}

// -------------------------------------------------------------------------------------------------

void CpuPasses::fill(std::span<const std::int64_t> sizes, const OutTable& out, double value) {
  for (std::size_t tensor = 0; tensor < sizes.size(); ++tensor) {
    cpu::fill_chunk(sizes[tensor], out.dtype, static_cast<unsigned char*>(out.data[tensor]), value);
  }
}

const char* CpuPasses::target() noexcept { return cpu::target_name(); }

CpuPasses::CpuPasses(int max_rows, int threads) : impl_(std::make_unique<Impl>(max_rows, threads)) {}
CpuPasses::~CpuPasses() = default;
CpuPasses::CpuPasses(CpuPasses&&) noexcept = default;
CpuPasses& CpuPasses::operator=(CpuPasses&&) noexcept = default;

}  // namespace bragg::detail
