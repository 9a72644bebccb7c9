#!/bin/sh
# Makes the token and the passwords that compose.yaml reads, each where there is none yet. Only you can enter
# their folder. The files in it can be read by all, because each container reads them as a user of its own.
set -eu
folder="$(dirname "$0")/secrets"
mkdir -p "$folder"
chmod 700 "$folder"
for name in ray_token s3_key mlflow_password postgres_password; do
    [ -s "$folder/$name" ] || od -An -N32 -tx1 /dev/urandom | tr -d ' \n' > "$folder/$name"
    chmod 444 "$folder/$name"
done
