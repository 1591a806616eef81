#!/usr/bin/env bash
# Installs the S3 servers that the tests start: OpenStack Swift from Debian and moto from PyPI. With
# --versitygw also the gateway of that name, where Go is at hand (some two minutes), and likewise with
# --fake-gcs-server an emulation of Google Cloud Storage. May run again.
set -euo pipefail
cd "$(dirname "$0")/.."

VERSITYGW_VERSION=v1.8.0
FAKE_GCS_VERSION=v1.52.2

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

packages=(python3 python3-venv python3-swift libisal2 openssl)
missing=()
for package in "${packages[@]}"; do
  dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

if ! cmp -s scripts/moto-requirements.txt .cache/moto/requirements.txt; then
  rm -rf .cache/moto
  mkdir -p .cache
  /usr/bin/python3 -m venv .cache/moto
  .cache/moto/bin/pip install --quiet --disable-pip-version-check -r scripts/moto-requirements.txt
  cp scripts/moto-requirements.txt .cache/moto/requirements.txt
fi

if [[ " $* " == *" --versitygw "* ]] && ! go version -m .cache/bin/versitygw 2>/dev/null | grep -q "versitygw.*$VERSITYGW_VERSION"; then
  mkdir -p .cache/bin
  GOBIN=$PWD/.cache/bin go install "github.com/versity/versitygw/cmd/versitygw@$VERSITYGW_VERSION"
fi

if [[ " $* " == *" --fake-gcs-server "* ]] && command -v go >/dev/null && ! go version -m .cache/bin/fake-gcs-server 2>/dev/null | grep -q "fake-gcs-server.*$FAKE_GCS_VERSION"; then
  mkdir -p .cache/bin
  GOBIN=$PWD/.cache/bin go install "github.com/fsouza/fake-gcs-server@$FAKE_GCS_VERSION"
fi
