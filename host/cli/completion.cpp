// SPDX-License-Identifier: Apache-2.0
#include "host/cli/completion.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <bragg/pipeline.hpp>

#include <algorithm>
#include <vector>

namespace bragg::cli {

namespace {

/// What stands at a place of the command line.
enum class Kind { nothing, file, folder, weights, rule, words };

struct Argument {
  std::vector<std::string> names;  ///< "-r", "--rule"; none: a positional
  std::string what;
  Kind kind = Kind::nothing;
  std::vector<std::string> words;
  bool takes_value = false;
  bool takes_several = false;
};

struct Command {
  std::string name;
  std::string what;
  std::vector<Argument> options;
  std::vector<Argument> positionals;
};

std::vector<std::string> rule_names() {
  std::vector<std::string> names;
  for (const RuleInfo& rule : rules()) names.emplace_back(rule.name);
  return names;
}

/// The a, b, c of "TEXT:{a,b,c}".
std::vector<std::string> set_in(const std::string& type) {
  std::vector<std::string> words;
  const std::size_t open = type.find('{'), close = type.find('}');
  if (open == std::string::npos || close == std::string::npos) return words;
  for (std::size_t begin = open + 1; begin < close;) {
    const std::size_t end = std::min(type.find(',', begin), close);
    words.push_back(type.substr(begin, end - begin));
    begin = end + 1;
  }
  return words;
}

Argument argument_of(const CLI::Option& option) {
  Argument argument;
  for (const std::string& name : option.get_snames()) argument.names.push_back("-" + name);
  for (const std::string& name : option.get_lnames()) argument.names.push_back("--" + name);
  argument.what = option.get_description();
  argument.takes_value = option.get_items_expected_max() > 0;
  argument.takes_several = option.get_items_expected_max() > 1;
  const std::string type = argument.takes_value ? option.get_type_name() : "";
  argument.words = type == rule_type ? rule_names() : set_in(type);
  if (!argument.words.empty()) argument.kind = type == rule_type ? Kind::rule : Kind::words;
  if (type == "FILE") argument.kind = Kind::file;
  if (type == folder_type) argument.kind = Kind::folder;
  if (type == weights_type) argument.kind = Kind::weights;
  return argument;
}

Command command_of(const CLI::App& app) {
  Command command{.name = app.get_name(), .what = app.get_description(), .options = {}, .positionals = {}};
  for (const CLI::Option* const option : app.get_options()) {
    (option->get_positional() ? command.positionals : command.options).push_back(argument_of(*option));
  }
  return command;
}

std::vector<Command> commands_of(const CLI::App& app) {
  std::vector<Command> commands;
  for (const CLI::App* const sub : app.get_subcommands([](const CLI::App*) { return true; }))
    commands.push_back(command_of(*sub));
  return commands;
}

std::vector<std::string> all_names(const std::vector<Argument>& options) {
  std::vector<std::string> names;
  for (const Argument& option : options) names.insert(names.end(), option.names.begin(), option.names.end());
  return names;
}

std::string replaced(std::string text, std::string_view from, std::string_view to) {
  for (std::size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size()))
    text.replace(at, from.size(), to);
  return text;
}

/// In single quotes, as every shell here reads them.
std::string quoted(const std::string& text) { return "'" + replaced(text, "'", "'\\''") + "'"; }

// ---- bash ----

constexpr const char* bash_begin = R"sh(# Completion of bragg for bash, made by `bragg completion bash`.
_bragg() {
  local cur=${COMP_WORDS[COMP_CWORD]} command= option= values=0 several= kind= words= i word
  for ((i = 1; i < COMP_CWORD; ++i)); do
    word=${COMP_WORDS[i]}
    case $word in
      = | @) ;;
      -*) option=$word values=0 ;;
      *) if [[ -z $command ]]; then command=$word; else ((++values)); fi ;;
    esac
  done
  # Readline takes --option=value and @FILE for several words.
  [[ $cur == = ]] && cur=
  case "$command $option" in
)sh";

constexpr const char* bash_middle = R"sh(  esac
  [[ $values -gt 0 && ( -z $several || $cur == -* ) ]] && kind=
  if [[ -z $kind && $cur == -* ]]; then
    case $command in
)sh";

constexpr const char* bash_positionals = R"sh(    esac
    kind=words
  elif [[ -z $kind ]]; then
    case $command in
)sh";

constexpr const char* bash_end = R"sh(    esac
  fi
  COMPREPLY=()
  case $kind in
    file) compopt -o default ;;
    folder) compopt -o dirnames ;;
    weights)
      if [[ $cur == @* || ${COMP_WORDS[COMP_CWORD - 1]} == @ ]]; then
        # What is completed may begin behind the @, by COMP_WORDBREAKS.
        local mark=
        [[ $2 == @* ]] && mark=@
        compopt -o nospace
        while IFS= read -r word; do
          [[ -d $word ]] && word+=/
          COMPREPLY+=("$mark$word")
        done < <(compgen -f -- "${cur#@}")
      fi
      ;;
    words)
      # In a quoted pipeline, the stage that is being written.
      cur=${cur#[\"\']}
      local last=${cur##*[| ]}
      for word in $words; do
        [[ $word == "$last"* ]] && COMPREPLY+=("${cur%"$last"}$word")
      done
      ;;
  esac
}
complete -F _bragg bragg
)sh";

std::string bash_kind(const Argument& argument) {
  switch (argument.kind) {
    case Kind::file:
      return "kind=file";
    case Kind::folder:
      return "kind=folder";
    case Kind::weights:
      return "kind=weights";
    case Kind::rule:
    case Kind::words:
      return fmt::format("kind=words words={}", quoted(fmt::format("{}", fmt::join(argument.words, " "))));
    case Kind::nothing:
      break;
  }
  return "kind=nothing";
}

std::string bash(const Command& app, const std::vector<Command>& commands) {
  std::string text = bash_begin;
  for (const Command& command : commands) {
    for (const Argument& option : command.options) {
      if (!option.takes_value) continue;
      std::vector<std::string> places;
      for (const std::string& name : option.names) places.push_back(quoted(command.name + " " + name));
      text += fmt::format("    {}) {}{} ;;\n", fmt::join(places, " | "), bash_kind(option),
                          option.takes_several ? " several=yes" : "");
    }
  }
  text += bash_middle;
  for (const Command& command : commands)
    text +=
        fmt::format("      {}) words='{}' ;;\n", command.name, fmt::join(all_names(command.options), " "));
  text += fmt::format("      '') words='{}' ;;\n", fmt::join(all_names(app.options), " "));
  text += bash_positionals;
  std::vector<std::string> names;
  for (const Command& command : commands) {
    names.push_back(command.name);
    if (command.positionals.empty()) continue;
    text += fmt::format("      {}) {} ;;\n", command.name, bash_kind(command.positionals.front()));
  }
  text += fmt::format("      '') kind=words words='{}' ;;\n", fmt::join(names, " "));
  return text + bash_end;
}

// ---- zsh ----

constexpr const char* zsh_begin = R"sh(#compdef bragg
# Completion of bragg for zsh, made by `bragg completion zsh`.
_bragg_weights() {
  compset -P '@' && _files
}
# The stage of a pipeline that is being written.
_bragg_rules() {
  compset -P '*[| ]'
  compadd -S '' -- @RULES@
}
_bragg() {
  local curcontext=$curcontext state line
  typeset -A opt_args
)sh";

constexpr const char* zsh_end = R"sh(      esac
      ;;
  esac
}
if [[ $funcstack[1] == _bragg ]]; then
  _bragg "$@"
else
  compdef _bragg bragg
fi
)sh";

/// What _arguments may not find in a description.
std::string zsh_text(std::string text) {
  for (const char* const special : {"\\", "[", "]", ":"})
    text = replaced(text, special, std::string("\\") + special);
  return text;
}

std::string zsh_action(const Argument& argument) {
  switch (argument.kind) {
    case Kind::file:
      return "_files";
    case Kind::folder:
      return "_files -/";
    case Kind::weights:
      return "_bragg_weights";
    case Kind::rule:
      return "_bragg_rules";
    case Kind::words:
      return fmt::format("({})", fmt::join(argument.words, " "));
    case Kind::nothing:
      break;
  }
  return " ";
}

std::string zsh_options(const Command& command) {
  std::string text;
  for (const Argument& option : command.options) {
    for (const std::string& name : option.names) {
      const std::string value =
          option.takes_value
              ? fmt::format(":{}value:{}", option.takes_several ? "*-*:" : "", zsh_action(option))
              : "";
      const std::string spec = fmt::format("({}){}{}[{}]{}", fmt::join(option.names, " "), name,
                                           !option.takes_value      ? ""
                                           : name.starts_with("--") ? "="
                                                                    : "+",
                                           zsh_text(option.what), value);
      text += " \\\n            " + quoted(spec);
    }
  }
  return text;
}

std::string zsh(const Command& app, const std::vector<Command>& commands) {
  std::string text = replaced(zsh_begin, "@RULES@", fmt::format("{}", fmt::join(rule_names(), " ")));
  text += fmt::format(
      "  _arguments -C{} \\\n            '1:command:->command' '*::argument:->argument' && return\n",
      zsh_options(app));
  text += "  case $state in\n    command)\n      local -a commands=(\n";
  for (const Command& command : commands)
    text += fmt::format("        {}\n", quoted(command.name + ":" + zsh_text(command.what)));
  text += "      )\n      _describe command commands\n      ;;\n    argument)\n      case $words[1] in\n";
  for (const Command& command : commands) {
    text += fmt::format("        {})\n          _arguments{}", command.name, zsh_options(command));
    for (const Argument& positional : command.positionals) {
      text += " \\\n            " + quoted(fmt::format("{}:{}:{}", positional.takes_several ? "*" : "",
                                                       zsh_text(positional.what), zsh_action(positional)));
    }
    text += "\n          ;;\n";
  }
  return text + zsh_end;
}

// ---- fish ----

std::string fish_value(const Argument& argument) {
  switch (argument.kind) {
    case Kind::file:
      return " -r -F";
    case Kind::folder:
      return " -x -a '(__fish_complete_directories)'";
    case Kind::weights:
      return " -x -a '(__bragg_weights)'";
    case Kind::rule:
    case Kind::words:
      return fmt::format(" -x -a {}", quoted(fmt::format("{}", fmt::join(argument.words, " "))));
    case Kind::nothing:
      break;
  }
  return argument.takes_value ? " -x" : "";
}

std::string fish_options(const Command& command, const std::string& condition) {
  std::string text;
  for (const Argument& option : command.options) {
    text += "complete -c bragg" + condition;
    for (const std::string& name : option.names)
      text += name.starts_with("--") ? " -l " + name.substr(2) : " -s " + name.substr(1);
    text += fmt::format(" -d {}{}\n", quoted(option.what), fish_value(option));
  }
  return text;
}

std::string fish(const Command& app, const std::vector<Command>& commands) {
  std::string text =
      "# Completion of bragg for fish, made by `bragg completion fish`.\n"
      "function __bragg_weights\n"
      "    string match -q '@*' -- (commandline -ct); or return\n"
      "    for path in (__fish_complete_path (string sub -s 2 -- (commandline -ct)))\n"
      "        echo @$path\n"
      "    end\n"
      "end\n"
      "complete -c bragg -f\n";
  text += fish_options(app, " -n __fish_use_subcommand");
  for (const Command& command : commands) {
    text += fmt::format("complete -c bragg -n __fish_use_subcommand -a {} -d {}\n", command.name,
                        quoted(command.what));
    const std::string condition = fmt::format(" -n '__fish_seen_subcommand_from {}'", command.name);
    text += fish_options(command, condition);
    for (const Argument& positional : command.positionals) {
      if (positional.kind == Kind::file) text += "complete -c bragg" + condition + " -F\n";
      if (positional.words.empty()) continue;
      text += fmt::format("complete -c bragg{} -a {}\n", condition,
                          quoted(fmt::format("{}", fmt::join(positional.words, " "))));
    }
  }
  return text;
}

}  // namespace

std::string completion_script(const CLI::App& app, std::string_view shell) {
  const Command main = command_of(app);
  const std::vector<Command> commands = commands_of(app);
  if (shell == "zsh") return zsh(main, commands);
  if (shell == "fish") return fish(main, commands);
  return bash(main, commands);
}

}  // namespace bragg::cli
