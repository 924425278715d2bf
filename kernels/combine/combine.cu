// SPDX-License-Identifier: Apache-2.0
#include "kernels/combine/combine.cuh"

namespace bragg::detail::cuda {
namespace {

template <DType dtype>
void launch_combine(const CombineArguments& arguments, Stream stream) {
  const int resident = simt::resident_blocks(combine_tiles<dtype>, combine_threads, 0);
  const std::int64_t pieces = arguments.tiles.pieces;
  const int blocks = pieces < resident ? static_cast<int>(pieces) : resident;
  simt::launch(combine_tiles<dtype>, blocks, 1, combine_threads, 0, stream, arguments);
}

}  // namespace

void combine(const CombineArguments& arguments, Stream stream) {
  switch (arguments.rows.dtype) {
    case DType::f32:
      return launch_combine<DType::f32>(arguments, stream);
    case DType::f16:
      return launch_combine<DType::f16>(arguments, stream);
    case DType::bf16:
      return launch_combine<DType::bf16>(arguments, stream);
    case DType::f64:
      return launch_combine<DType::f64>(arguments, stream);
  }
}

}  // namespace bragg::detail::cuda
