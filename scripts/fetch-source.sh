#!/usr/bin/env bash
# fetch-source.sh FOLDER PACKAGE VERSION...: unpacks Debian's source package PACKAGE into FOLDER/PACKAGE, and does nothing when
# it is there already. VERSION: shell patterns, one of which its version must match. The machine's apt configuration is
# only read: lists, cache and sources live in FOLDER.
#
# Trust: apt verifies the signed index and with it the hash of the .dsc; dpkg-source verifies the archives against it.
set -euo pipefail

usage="usage: fetch-source.sh FOLDER PACKAGE VERSION..."
folder=$(realpath -m "${1:?$usage}")
package=${2:?$usage}
shift 2
stamp=$folder/$package/.complete
[ -f "$stamp" ] && exit 0

say() { echo "fetch-source: $*" >&2; }
die() {
  say "$*"
  say "to build without the network, put its unpacked sources at $folder/$package and touch $stamp"
  exit 1
}
command -v apt-get >/dev/null && command -v dpkg-source >/dev/null || die "needs apt-get and dpkg-source (package dpkg-dev)"

# The mirror that this machine already uses, in whatever form it is configured: the first archive whose release is the
# running one. Where nothing fits, Debian's canonical address.
codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-bookworm}")
uri=$(apt-get indextargets --format '$(RELEASE) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
  awk -v release="$codename" '$1 == release && $2 == "main" { print $3; exit }') || true
uri=${uri:-http://deb.debian.org/debian/}
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
signed_by=
[ -f "$keyring" ] && signed_by="[signed-by=$keyring] "

work=$folder/download-$package
mkdir -p "$work/lists/partial" "$work/archives/partial"
echo "deb-src ${signed_by}${uri} $codename main" >"$work/source.list"
private=(-q -o "Dir::Etc::sourcelist=$work/source.list" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$work/lists"
  -o "Dir::Cache=$work" -o "Dir::Cache::archives=$work/archives" -o APT::Sandbox::User= -o Acquire::Retries=2
  -o Acquire::Languages=none -o Debug::NoLocking=1)

log=$work/log
say "fetching Debian's source package $package ($codename) from $uri"
apt-get "${private[@]}" -o APT::Update::Error-Mode=any update >"$log" 2>&1 ||
  { tail -n 5 "$log" >&2; die "could not fetch the index of source packages"; }
(cd "$work" && rm -f "${package}_"* && apt-get "${private[@]}" source --download-only "$package") >>"$log" 2>&1 ||
  { tail -n 5 "$log" >&2; die "could not fetch the source package"; }

rm -rf "${folder:?}/$package" "$work/unpacked"
dpkg-source --require-strong-checksums -x "$work/${package}_"*.dsc "$work/unpacked" >>"$log" 2>&1 ||
  { tail -n 5 "$log" >&2; die "the source package does not verify or unpack"; }
version=$(sed -n 's/^Version: *//p' "$work/${package}_"*.dsc | head -n 1)
wanted=
for pattern in "$@"; do
  # shellcheck disable=SC2254
  case $version in $pattern) wanted=yes ;; esac
done
[ -n "$wanted" ] || die "found $package $version, but the build is written for: $*"
mv "$work/unpacked" "$folder/$package"
touch "$stamp"
rm -rf "$work"
say "$package $version unpacked to $folder/$package"
