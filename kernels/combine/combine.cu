// SPDX-License-Identifier: Apache-2.0
#include "kernels/combine/combine.cuh"
#include "kernels/common/sum_unit.hpp"

namespace bragg::detail::cuda {

void combine(const CombineArguments& arguments, Stream stream) {
  const SumUnit unit = settled(arguments.unit);
  with_dtype(arguments.rows.dtype, [&]<DType dtype>() {
    if constexpr (dtype != DType::f64) {
      if (unit == SumUnit::double_float)
        return launch_combine<dtype, CombineTuning, SumUnit::double_float>(arguments, stream);
    }
    launch_combine<dtype>(arguments, stream);
  });
}

}  // namespace bragg::detail::cuda
