#!/bin/sh
# Runs when the agent begins, once for the pool and again for each owner. What takes long belongs into the first part:
# it is done by the time that somebody claims the workspace.
set -eu

if [ ! -d project ]; then
  mkdir project
  printf 'print("it works")\n' > project/main.py
fi

if [ "$PREBUILDS_IS_PREBUILD" = true ]; then
  echo "waiting for an owner"
else
  echo "$PREBUILDS_PARAMETER_GREETING, $PREBUILDS_OWNER! This is $PREBUILDS_WORKSPACE_NAME." | tee welcome.txt
fi
