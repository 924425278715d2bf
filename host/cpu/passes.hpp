// SPDX-License-Identifier: Apache-2.0
// The three streaming passes on the CPU: gram, combine and select (docs/architecture.md).
#pragma once

#include <bragg/updates.hpp>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "host/cpu/row_samples.hpp"
#include "rules/select_rule.hpp"

namespace bragg::detail {

/// The data a pass reads: `inputs` worker rows, then reference rows, each a list of tensors. Pointers need no
/// alignment.
struct RowTable {
  DType dtype = DType::f32;            ///< of the first `inputs` rows
  DType reference_dtype = DType::f32;  ///< of the rest
  int inputs = 0;
  int rows = 0;
  std::span<const std::int64_t> sizes;  ///< elements of each tensor (or window of one)
  const void* const* data =
      nullptr;              ///< [tensor * rows + row]; a null pointer is a tensor of zeros (the origin)
  bool unfinished = false;  ///< the last tensor goes on in the next window

  DType dtype_of(int row) const noexcept { return row < inputs ? dtype : reference_dtype; }
};

/// Where a pass writes one row: data[tensor]. May be exactly the memory of one of the rows it reads. Where it
/// writes one for each point (SelectRule::Kind::none): data[point * stride + tensor], apart from all rows.
struct OutTable {
  DType dtype = DType::f32;
  void* const* data = nullptr;
  std::size_t stride = 0;
};

/// The centre that is subtracted from every row before rows are multiplied.
struct GramCenter {
  enum class Kind {
    none,
    row,     ///< a row of the table, its values that are not finite as 0
    median,  ///< of each coordinate the lower median of the worker rows that count
  };
  Kind kind = Kind::none;
  int row = 0;
  std::vector<std::uint8_t> left_out = {};  ///< median: per worker row, not 0: it does not count
  std::vector<double> weights = {};  ///< median: per worker row, for the weighted one; empty: none has any
};

inline constexpr std::int64_t gram_block = 8192;

/// Blocks of a leaf (see GramSums) of rows of these tensors: a power of two, so that there are no more than
/// 1024 leaves and one for each tensor. A function of the shape alone.
std::int64_t leaf_blocks_of(std::span<const std::int64_t> sizes);

/// Sums of one leaf after another, for somebody else to add.
struct LeafRecords {
  std::vector<std::size_t> entries;  ///< which products: places in GramSums::products
  std::vector<double> values =
      {};  ///< [leaf][product or what it lost][entry]: leaves of one block lose nothing
};

/// The products that GramSums holds of `inputs` rows and the references behind them, rows being columns too.
std::vector<std::size_t> gram_entries(int rows, int inputs, bool pairs);

/// Running sums of the gram pass over any number of windows.
///
/// Coordinates are summed in blocks of `gram_block`, blocks in leaves of `leaf_blocks`, each tensor starting
/// a new block and a new leaf; block sums are added in order, and so are those of leaves. So the bits do not
/// depend on threads, nor on windows whose borders within a tensor are multiples of gram_block, nor on who
/// sums which leaves. What adding block sums loses is kept beside them: the error of a product does not grow
/// with their number.
struct GramSums {
  int rows = 0;
  bool wanted = true;      ///< false: only `nonfinite` and `max_abs` are computed
  bool pairs = true;       ///< false: only products of each row with itself and with references; others are 0
  bool wide = false;       ///< some rows are f64: their products depend on `scale`
  bool f32 = false;        ///< products are taken in f32 (gram_products_f32): none of f64 rows, all pairs
  int round = 0;           ///< passes made before
  double limit = 0x1p500;  ///< f64 rows that hold a larger |x| count as infinite
  double scale = 1;        ///< power of two that f64 rows are multiplied by (others: 1)
  std::vector<double>
      products;  ///< rows × rows, symmetric, of scaled rows; what an infinite row touches is unspecified
  std::vector<double> low;              ///< what rounding took from `products`: a product is the sum of both
  double rounding = 0;                  ///< a product is off by at most rounding·‖x_i‖·‖x_j‖
  double distance_error = 0;            ///< as Report, of products that are final
  GramCenter center;                    ///< products are those of rows less it, and their lengths, too
  std::vector<std::int64_t> nonfinite;  ///< per row
  std::vector<double> max_abs;  ///< per row, largest finite |x − center|, unscaled; f64 rows only, others 0
  /// Called when `products`, of columns up to the row, hold all of the window's tensor `t` and of those
  /// before it, and nothing else of the window; not of empty tensors. It throws nothing. Empty: nobody asks.
  std::function<void(std::size_t t)> ended = {};
  std::int64_t leaf_blocks = 1;    ///< set before the first reset
  std::int64_t coordinates = 0;    ///< likewise, where rows are sampled: how many they have
  RowSamples samples = {};         ///< of the first pass
  LeafRecords* records = nullptr;  ///< not null: leaves go there instead of into `products`

  /// Keeps leaf_blocks, coordinates, samples and records, and empties the last.
  void reset(int rows_in, bool wanted_in, double scale_in, bool pairs_in = true);
  /// The same for the pass that `whole` is about to take, of some of its leaves.
  void reset_for(const GramSums& whole);

  /// Adds a leaf's product, and what that lost.
  void add(std::size_t at, double value, double value_low) {
    two_sum(products[at], low[at], value);
    low[at] += value_low;
  }

  /// Sums that a block's are added to.
  double* open_products() noexcept { return has_leaves() ? leaf_.data() : products.data(); }
  double* open_low() noexcept { return has_leaves() ? leaf_low_.data() : low.data(); }
  /// A block was added; it was its tensor's last.
  void end_block(bool ends_tensor);
  /// Room for the records of rows of such tensors: end_block is called in parallel regions, which end the
  /// process where they throw.
  void reserve_records(std::span<const std::int64_t> sizes);
  bool has_leaves() const noexcept { return leaf_blocks > 1 || records != nullptr; }

  /// Knuth's.
  static void two_sum(double& sum, double& lost, double value) noexcept {
    const double before = sum;
    const double total = before + value;
    const double taken = total - before;
    lost += (before - (total - taken)) + (value - taken);
    sum = total;
  }

 private:
  std::vector<double> leaf_, leaf_low_;  // of the open leaf
  std::int64_t in_leaf_ = 0;             // blocks
};

/// GramSums::rounding where no sum has more than `additions` in a row, but for the compensated ones. Beside
/// them: the product's own rounding; of a sum of sums two; in a squared distance three subtractions; and what
/// is lost by lengths that are themselves rounded. (Σ|x_ik·x_jk| is at most ‖x_i‖·‖x_j‖.)
constexpr double gram_rounding(std::int64_t additions) {
  return (static_cast<double>(additions) + 16) * 0x1.01p-53;
}

/// GramSums::rounding of products in f64; about a centre each factor is rounded, too.
double gram_f64_rounding(bool centered = false) noexcept;

/// The points that `select` sees: rows themselves, or combinations of rows.
struct PointTable {
  int count = 0;
  int origin = -1;                         ///< table row of o, which some rules are about
  std::span<const int> rows;               ///< point i is row rows[i], unless points are mixed
  std::span<const double> mix;             ///< empty, or mixed: coefficients, [point][table row]
  std::span<const std::uint8_t> infinite;  ///< empty, or per point: it reads +inf in every coordinate
  std::span<const double> weights;  ///< empty, or per point (≥ 0): weighted median / weighted trimmed mean

  bool mixed() const noexcept { return !mix.empty(); }
};

class CpuPasses {
 public:
  /// Of a table whose products may be taken in f32.
  static constexpr int most_f32_rows = 255;

  /// Scratch for tables of up to `max_rows` rows; 0 threads: OpenMP's choice.
  CpuPasses(int max_rows, int threads);
  ~CpuPasses();
  CpuPasses(CpuPasses&&) noexcept;
  CpuPasses& operator=(CpuPasses&&) noexcept;

  /// Adds the window's products and statistics to `sums`.
  void gram(const RowTable& table, GramSums& sums);

  /// out = Σ coefficients[i]·row i, in f64, rounded once. Rows of coefficient 0 are not read (0·∞ never
  /// happens). `nonfinite`: empty, or per row: non-finite values seen are added.
  void combine(const RowTable& table, std::span<const double> coefficients, const OutTable& out,
               std::span<std::int64_t> nonfinite);

  /// out = rule(points) per coordinate. `nonfinite`: empty, or per table row: non-finite values seen are
  /// added (only rows that are points; not counted when mixed).
  void select(const RowTable& table, const SelectRule& rule, const PointTable& points, const OutTable& out,
              std::span<std::int64_t> nonfinite);

  /// Rows of `out` filled with a value (NaN or 0), for OnFailure.
  static void fill(std::span<const std::int64_t> sizes, const OutTable& out, double value);

  /// The instruction set that runs, e.g. "AVX3".
  static const char* target() noexcept;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace bragg::detail
