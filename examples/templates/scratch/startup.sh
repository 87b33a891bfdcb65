#!/bin/sh
set -eu
echo "$PREBUILDS_OWNER" > owner.txt
