#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# release_test.sh SOURCE: what scripts/release.sh refuses to release, and that it says why.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/scripts"
cp "$1/scripts/release.sh" "$folder/scripts/"
cd "$folder"
unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE
git() { command git -c user.name=test -c user.email=test@example.com -c commit.gpgSign=false "$@"; }
commit() { git add --all && git commit --quiet --allow-empty --message test; }

# expect TEXT ARGS…: release.sh --check ARGS fails, and says TEXT. With an empty TEXT it succeeds.
expect() {
  local text=$1 said status=0
  shift
  said=$(scripts/release.sh --check "$@" 2>&1) || status=$?
  if [[ -z "$text" ]]; then
    [[ $status == 0 ]] || { echo "refused: $said"; exit 1; }
  elif [[ $status != 1 || "$said" != *"$text"* ]]; then
    echo "expected a failure with \"$text\", got $status: $said"
    exit 1
  fi
}

git init --quiet
echo 'project(bragg VERSION 1.2.3 LANGUAGES CXX)' > CMakeLists.txt
printf '# Changelog\n\n## 1.2.30, 2001-02-03\n\n## 1x2.3, 2001-02-03\n' > CHANGELOG.md
commit
expect 'no section "## 1.2.3, '
expect 'no section "## 1.2.3, ' --untagged

printf '# Changelog\n\n## 1.2.3, unreleased\n' > CHANGELOG.md
expect 'not committed' --untagged
commit
expect 'says "## 1.2.3, unreleased"'
expect '' --untagged

printf '# Changelog\n\n## 1.2.3, 2001-02-03\n' > CHANGELOG.md
commit
expect 'its tags: none'
git tag v1.2.30
git tag other
expect 'its tags: other v1.2.30'
git tag v1.2.3
expect ''
touch untracked
expect 'untracked'
rm untracked
git commit --quiet --allow-empty --message later
expect 'its tags: none'
echo 'project(bragg LANGUAGES CXX)' > CMakeLists.txt
commit
expect 'no project(bragg VERSION'
