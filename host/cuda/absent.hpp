// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace bragg::detail {

/// Answers a request for a device in a build without CUDA. @throws Error unsupported.
[[noreturn]] void refuse_cuda();

}  // namespace bragg::detail
