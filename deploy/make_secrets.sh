#!/bin/sh
# Make the passwords of compose.yaml in deploy/secrets. What is there already stays: run it again at any time.
set -eu
umask 077
secrets="${1:-$(dirname "$0")/secrets}"
mkdir -p "$secrets"
# The containers' users are others than yours and must read the files; the folder keeps everyone else out.
chmod 700 "$secrets"

keep() { # keep NAME TEXT: write a secret, unless it is there
    [ -s "$secrets/$1" ] || printf '%s' "$2" >"$secrets/$1"
    chmod 444 "$secrets/$1"
}
random() { # random N: N hexadecimal digits
    od -An -N"$(($1 / 2))" -tx1 /dev/urandom | tr -d ' \n'
}

for name in postgres_password ddiseg_database_password label_studio_database_password minio_password \
    ddiseg_s3_password label_studio_admin_password label_studio_token label_studio_key; do
    keep "$name" "$(random 40)"
done
keep minio_user administrator
keep ddiseg_s3_key ddiseg
keep ddiseg_catalogue "postgresql+psycopg://ddiseg:$(cat "$secrets/ddiseg_database_password")@postgres/ddiseg"
keep ddiseg_s3 "[default]
aws_access_key_id = $(cat "$secrets/ddiseg_s3_key")
aws_secret_access_key = $(cat "$secrets/ddiseg_s3_password")
"
echo "secrets: $secrets"
