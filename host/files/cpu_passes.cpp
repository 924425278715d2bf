// SPDX-License-Identifier: Apache-2.0
#include "host/files/window_passes.hpp"

#include <vector>

namespace bragg::detail {

namespace {

class CpuWindowPasses final : public WindowPasses {
 public:
  CpuWindowPasses(Engine& engine, const SlotShape& shape)
      : engine_(engine),
        rows_(std::make_unique_for_overwrite<std::byte[]>(
            static_cast<std::size_t>(shape.rows * shape.row_stride))),
        output_(std::make_unique_for_overwrite<std::byte[]>(static_cast<std::size_t>(shape.row_stride))) {}

  int slots() const noexcept override { return 1; }
  std::byte* rows(int) noexcept override { return rows_.get(); }
  std::byte* output(int) noexcept override { return output_.get(); }
  void accumulate(int, const RowTable& window, GramSums& sums) override { engine_.accumulate(window, sums); }
  void scan(int, const RowTable& window) override {
    nonfinite_.resize(static_cast<std::size_t>(window.rows));
    engine_.count_nonfinite(window, nonfinite_);
  }
  void scanned(std::span<std::int64_t> nonfinite) override {
    for (std::size_t i = 0; i < nonfinite_.size(); ++i) nonfinite[i] += nonfinite_[i];
    nonfinite_.clear();
  }
  void apply(int, const RowTable& window, const OutTable& out, Solution& solution) override {
    engine_.apply(window, solution, out);
  }

 private:
  Engine& engine_;
  std::unique_ptr<std::byte[]> rows_, output_;
  std::vector<std::int64_t> nonfinite_;  // of what was scanned
};

}  // namespace

std::unique_ptr<WindowPasses> make_cpu_passes(Engine& engine, const SlotShape& shape) {
  return std::make_unique<CpuWindowPasses>(engine, shape);
}

}  // namespace bragg::detail
