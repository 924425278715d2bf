// SPDX-License-Identifier: Apache-2.0
// In cuBLAS' place on the executor: it holds callers to what cuBLAS' documentation asks of them, and adds
// products up as badly as cuBLAS may: in another order in each tile of 8 × 8 pairs, which the shape and the
// tile decide.
#pragma once

namespace bragg::test::fake_cublas {

/// Handles that were made so far, and that are there.
int handles_made();
int handles_there();
/// Products of matrices, batches of them as one.
int calls();
/// Of the library, where bragg was built for 13.
void set_major_version(int version);
/// The next handle cannot be made.
void refuse_next_handle();

}  // namespace bragg::test::fake_cublas
