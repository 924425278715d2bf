// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bragg/audit.hpp>

#include "host/audit/looks.hpp"

namespace bragg::detail {

/// Which rule to take, of an audit that is done, and what speaks for it and against it.
AuditAdvice advise(const Audit& audit, const Looks& looks, const AuditOptions& options);

}  // namespace bragg::detail
