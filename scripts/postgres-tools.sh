#!/usr/bin/env bash
# Puts PostgreSQL programs of releases newer than this Debian into .cache/postgresql-<major>: the
# embedded servers of the tests come without pg_dumpall, pg_amcheck and pg_checksums. Their shared
# libraries and loader stand beside them, so they run as any user. Needs root for mmdebstrap only.
set -euo pipefail
cd "$(dirname "$0")/.."

mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep -v security | head -n 1)

make_tools() {
  local suite=$1 major=$2
  local target=$PWD/.cache/postgresql-$major
  [ ! -e "$target/complete" ] || return 0
  local scratch
  scratch=$(mktemp -d)
  mmdebstrap --quiet --variant=extract --aptopt='Acquire::Check-Valid-Until "false"' \
    --include="postgresql-$major,postgresql-client-$major" "$suite" "$scratch/root" "$mirror" >/dev/null 2>&1

  local libraries=$scratch/root/usr/lib/x86_64-linux-gnu
  local loader=$libraries/ld-linux-x86-64.so.2
  rm -rf "$target"
  mkdir -p "$target/bin" "$target/lib"
  local program
  for program in psql pg_dump pg_dumpall pg_amcheck pg_checksums pg_waldump; do
    cp "$scratch/root/usr/lib/postgresql/$major/bin/$program" "$target/bin/"
    "$loader" --library-path "$libraries" --list "$target/bin/$program" | awk '/=>/ {print $3}' |
      xargs -r cp -n -L -t "$target/lib"
  done
  cp -L "$loader" "$target/lib/"
  for program in "$target"/bin/*; do
    patchelf --set-interpreter "$target/lib/ld-linux-x86-64.so.2" --force-rpath --set-rpath "$target/lib" "$program"
  done
  chmod -R a+rX "$target"
  rm -rf "$scratch"
  touch "$target/complete"
}

make_tools trixie 17
make_tools sid 18
