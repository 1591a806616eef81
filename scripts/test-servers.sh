#!/usr/bin/env bash
# Installs the S3 servers that the tests start: OpenStack Swift from Debian and moto from PyPI. May run
# again. Those of the Go module registry are built by `npm run test:interop`.
set -euo pipefail
cd "$(dirname "$0")/.."

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
