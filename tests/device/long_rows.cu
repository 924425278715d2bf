// SPDX-License-Identifier: Apache-2.0
#include "tests/device/long_rows.hpp"

#include <thrust/execution_policy.h>
#include <thrust/find.h>
#include <thrust/iterator/counting_iterator.h>

namespace bragg::test {
namespace {

struct IsWrong {
  LongRowsJudge judge;
  BRAGG_HD bool operator()(std::int64_t coordinate) const { return judge.is_wrong(coordinate); }
};

}  // namespace

std::int64_t first_wrong(const LongRowsJudge& judge, std::int64_t d, detail::cuda::Stream stream) {
  const thrust::counting_iterator<std::int64_t> first(0);
  return thrust::find_if(thrust::cuda::par.on(stream), first, first + d, IsWrong{judge}) - first;
}

}  // namespace bragg::test
