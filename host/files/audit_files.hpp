// SPDX-License-Identifier: Apache-2.0
// An audit of checkpoints on disk.
#pragma once

#include <bragg/audit.hpp>

#include "host/files/inputs.hpp"

namespace bragg::detail {

/// Reads the rows twice, in windows of at most 64 MiB. Rows that cannot be read become bad ones.
/// @throws Error as `audit` without a base in `options`: the inputs' own is taken; bad_file where a row
/// changes
///   that was looked at.
Audit audit_files(Inputs& inputs, const AuditOptions& options);

}  // namespace bragg::detail
