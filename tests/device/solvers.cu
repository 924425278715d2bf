// SPDX-License-Identifier: Apache-2.0
// Compiled, never run: every solver that must later run in a thread block is device code already.
#include "host/solve/arc.hpp"
#include "host/solve/bucketing.hpp"
#include "host/solve/bulyan.hpp"
#include "host/solve/caf.hpp"
#include "host/solve/centered_clipping.hpp"
#include "host/solve/cge.hpp"
#include "host/solve/clip.hpp"
#include "host/solve/geometric_median.hpp"
#include "host/solve/krum.hpp"
#include "host/solve/monna.hpp"
#include "host/solve/nnm.hpp"

namespace bragg::detail {

template <class RuleT>
__global__ void solve_kernel(RuleT rule, Points points, Scratch scratch, Combination out, Status* status) {
  *status = solve(SerialTeam{}, rule, points, scratch, out);
}
template <class RuleT>
__global__ void transform_kernel(RuleT rule, Points points, Scratch scratch, Transform out, Status* status) {
  *status = transform(SerialTeam{}, rule, points, scratch, out);
}
__global__ void bulyan_kernel(Bulyan rule, Points points, Scratch scratch, int* chosen, Status* status) {
  *status = select_points(SerialTeam{}, rule, points, scratch, chosen);
}

template __global__ void solve_kernel(Krum, Points, Scratch, Combination, Status*);
template __global__ void solve_kernel(MultiKrum, Points, Scratch, Combination, Status*);
template __global__ void solve_kernel(GeometricMedian, Points, Scratch, Combination, Status*);
template __global__ void solve_kernel(CenteredClipping, Points, Scratch, Combination, Status*);
template __global__ void solve_kernel(Caf, Points, Scratch, Combination, Status*);
template __global__ void solve_kernel(Monna, Points, Scratch, Combination, Status*);
template __global__ void solve_kernel(Cge, Points, Scratch, Combination, Status*);
template __global__ void transform_kernel(Nnm, Points, Scratch, Transform, Status*);
template __global__ void transform_kernel(Clip, Points, Scratch, Transform, Status*);
template __global__ void transform_kernel(Arc, Points, Scratch, Transform, Status*);
template __global__ void transform_kernel(BucketingDraw, Points, Scratch, Transform, Status*);

}  // namespace bragg::detail
