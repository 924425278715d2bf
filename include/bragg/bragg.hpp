// SPDX-License-Identifier: Apache-2.0
// Everything of the C++ interface.
#pragma once

#include <bragg/attacks.hpp>
#include <bragg/audit.hpp>
#include <bragg/communicator.hpp>
#include <bragg/error.hpp>
#include <bragg/io.hpp>
#include <bragg/pipeline.hpp>
#include <bragg/plan.hpp>
#include <bragg/report.hpp>
#include <bragg/reputation.hpp>
#include <bragg/sharded.hpp>
#include <bragg/updates.hpp>
#include <bragg/version.hpp>
