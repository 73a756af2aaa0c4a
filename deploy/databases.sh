#!/bin/sh
# Make one database each for ddiseg and Label Studio, with an owner that may use no other. The image of
# PostgreSQL runs this once, when its volume is empty.
set -eu
secrets="${SECRETS:-/run/secrets}"

for name in ddiseg label_studio; do
    password="$(cat "$secrets/${name}_database_password")"
    # psql quotes the values of variables (:'x'); passwords do not stand on a command line.
    PASSWORD="$password" psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --set name="$name" \
        --username "$POSTGRES_USER" --dbname postgres <<'SQL'
\getenv password PASSWORD
CREATE ROLE :"name" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name" ENCODING 'UTF8' TEMPLATE template0;
REVOKE CONNECT ON DATABASE :"name" FROM PUBLIC;
SQL
done
