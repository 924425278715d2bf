// SPDX-License-Identifier: Apache-2.0
#include "examples/digits/command.hpp"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <system_error>

namespace digits {
namespace {

pid_t start(const std::vector<std::string>& arguments, const std::filesystem::path& log) {
  std::vector<char*> argv;
  for (const std::string& argument : arguments) {
    argv.push_back(const_cast<char*>(argument.c_str()));  // posix_spawn does not write to it
  }
  argv.push_back(nullptr);

  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
  posix_spawn_file_actions_adddup2(&files, STDOUT_FILENO, STDERR_FILENO);
  pid_t child = 0;
  const int error = posix_spawn(&child, argv.front(), &files, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&files);
  if (error != 0) {
    throw std::system_error(error, std::generic_category(), "cannot run " + arguments.front());
  }
  return child;
}

}  // namespace

void run_command(const std::vector<std::string>& arguments, const std::filesystem::path& log) {
  const pid_t child = start(arguments, log);
  int status = 0;
  while (waitpid(child, &status, 0) < 0) {
    if (errno != EINTR) {
      throw std::system_error(errno, std::generic_category(), "cannot wait for " + arguments.front());
    }
  }
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    std::stringstream words;
    words << std::ifstream(log).rdbuf();
    throw std::runtime_error(arguments.front() + " failed:\n" + words.str());
  }
}

}  // namespace digits
