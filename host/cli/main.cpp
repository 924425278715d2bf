// SPDX-License-Identifier: Apache-2.0
#include "host/cli/command.hpp"

int main(int argc, char** argv) { return bragg::cli::command(argc, argv); }
