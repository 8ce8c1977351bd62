#!/usr/bin/env bash
# build-lwip.sh FOLDER: unpacks the lwIP sources of Debian's source package `lwip` into FOLDER/lwip and prints nothing
# when they are there already. The machine's apt configuration is only read: lists, cache and sources live in FOLDER.
#
# Trust: apt verifies the signed index and with it the hash of the .dsc; dpkg-source verifies the archives against it.
set -euo pipefail

folder=$(realpath -m "${1:?usage: build-lwip.sh FOLDER}")
stamp=$folder/lwip/.complete
[ -f "$stamp" ] && exit 0

say() { echo "build-lwip: $*" >&2; }
die() {
  say "$*"
  say "to build without the network, put an unpacked lwIP 2.1.3 source tree at $folder/lwip and touch $stamp"
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

work=$folder/download
mkdir -p "$work/lists/partial" "$work/archives/partial"
echo "deb-src ${signed_by}${uri} $codename main" >"$work/source.list"
private=(-q -o "Dir::Etc::sourcelist=$work/source.list" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$work/lists"
  -o "Dir::Cache=$work" -o "Dir::Cache::archives=$work/archives" -o APT::Sandbox::User= -o Acquire::Retries=2
  -o Acquire::Languages=none -o Debug::NoLocking=1)

log=$work/log
say "fetching Debian's source package lwip ($codename) from $uri"
apt-get "${private[@]}" -o APT::Update::Error-Mode=any update >"$log" 2>&1 ||
  { tail -n 5 "$log" >&2; die "could not fetch the index of source packages"; }
(cd "$work" && rm -f lwip_* && apt-get "${private[@]}" source --download-only lwip) >>"$log" 2>&1 ||
  { tail -n 5 "$log" >&2; die "could not fetch the source package"; }

rm -rf "$folder/lwip" "$work/unpacked"
dpkg-source --require-strong-checksums -x "$work"/lwip_*.dsc "$work/unpacked" >>"$log" 2>&1 ||
  { tail -n 5 "$log" >&2; die "the source package does not verify or unpack"; }
version=$(sed -n 's/^Version: *//p' "$work"/lwip_*.dsc | head -n 1)
case $version in
  2.1.3* | 2.1.4* | 2.2.*) ;;
  *) die "found lwIP $version, but net/ is written for 2.1.3" ;;
esac
mv "$work/unpacked" "$folder/lwip"
touch "$stamp"
rm -rf "$work"
say "lwIP $version unpacked to $folder/lwip"
