#!/bin/sh
# What the converter's container runs: `convkit convert`, as the owner of the folder that it writes into, so that nothing
# there comes to belong to root, and the model's own code is not run by root unless the folder is root's.
set -eu

folder=${TARGET_MODEL_PATH:-$PWD}
while [ ! -e "$folder" ]; do folder=$(dirname "$folder"); done
user=$(id -u)
become=
if [ "$user" = 0 ]; then
    user=$(stat -L -c %u "$folder")
    become="setpriv --reuid=$user --regid=$(stat -L -c %g "$folder") --clear-groups --"
    export HOME=/tmp
fi
export CONVKIT_CACHE_DIR="${CONVKIT_CACHE_DIR:-/cache/$user}"
# shellcheck disable=SC2086 # words, none of which has a space
exec $become /opt/convkit/bin/convkit convert "$@"
