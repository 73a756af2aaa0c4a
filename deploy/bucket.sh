#!/bin/sh
# Make the bucket of the store, and ddiseg's account, which may use this bucket alone. Run at each start.
set -eu
secrets="${SECRETS:-/run/secrets}"
read_secret() { cat "$secrets/$1"; }

mc --quiet alias set s3 http://minio:9000 "$(read_secret minio_user)" "$(read_secret minio_password)"
mc --quiet mb --ignore-existing s3/ddiseg
# An object that is deleted or replaced by mistake can be got back for 30 days.
mc --quiet version enable s3/ddiseg
mc --quiet ilm rule ls s3/ddiseg >/dev/null 2>&1 || mc --quiet ilm rule add --noncurrent-expire-days 30 s3/ddiseg
mc --quiet admin policy create s3 ddiseg /deploy/bucket-policy.json
mc --quiet admin user add s3 "$(read_secret ddiseg_s3_key)" "$(read_secret ddiseg_s3_password)"
mc --quiet admin policy attach s3 ddiseg --user "$(read_secret ddiseg_s3_key)" || true # attached already
