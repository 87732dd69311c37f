#!/bin/sh
# Installs a Postern program as a systemd service, or takes it away again. Running it twice does no harm.
#
#   sh install.sh client|server FILE     FILE is client.js or server.js
#   sh install.sh --uninstall client|server
#
# With DESTDIR=FOLDER everything is put below that folder, and neither users nor services are touched.
set -eu

die() { echo "install.sh: $*" >&2; exit 1; }

deploy=$(cd "$(dirname "$0")" && pwd)
root=${DESTDIR:-}
uninstall=no
[ "${1:-}" = --uninstall ] && { uninstall=yes; shift; }
program=${1:-}
case $program in
  client) user=postern ;;
  server) user=postern-server ;;
  *) die "say client or server, as in: sh install.sh client client.js" ;;
esac
unit=postern-$program.service
state=/var/lib/$user
[ -n "$root" ] || [ "$(id -u)" = 0 ] || die "this needs root"

if [ $uninstall = yes ]; then
  [ -n "$root" ] || systemctl disable --now "$unit" 2>/dev/null || true
  rm -f "$root/etc/systemd/system/$unit" "$root/usr/lib/tmpfiles.d/postern-$program.conf" "$root/opt/postern/$program.js"
  [ -n "$root" ] || systemctl daemon-reload
  echo "The service and the program are gone. Keys and state stay in $state, settings in /etc/postern."
  exit 0
fi

file=${2:-}
[ -f "$file" ] || die "name the program's file, as in: sh install.sh $program $program.js"
node=$(command -v node) || die "there is no node: install Node 22.19 or newer, https://nodejs.org/en/download"
node=$(readlink -f "$node")
"$node" -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 22 || (a === 22 && b >= 19) ? 0 : 1)' ||
  die "$node is $("$node" --version): install Node 22.19 or newer, https://nodejs.org/en/download"
case $root:$node in
  :/home/*|:/root/*) die "$node lies in a home folder, which services do not see: install Node for the whole machine" ;;
esac

install -d -m 0755 "$root/opt/postern" "$root/etc/postern" "$root/etc/systemd/system" "$root/usr/lib/sysusers.d"
install -m 0644 "$file" "$root/opt/postern/$program.js"
install -m 0644 "$deploy/postern.sysusers.conf" "$root/usr/lib/sysusers.d/postern.conf"
if [ "$program" = client ]; then
  install -d -m 0755 "$root/usr/lib/tmpfiles.d"
  install -m 0644 "$deploy/postern-client.tmpfiles.conf" "$root/usr/lib/tmpfiles.d/postern-client.conf"
fi
sed "s|/usr/bin/node|$node|" "$deploy/$unit" > "$root/etc/systemd/system/$unit"
chmod 0644 "$root/etc/systemd/system/$unit"
if [ ! -e "$root/etc/postern/$program.toml" ]; then
  (cd / && "$node" "$root/opt/postern/$program.js" config --example) > "$root/etc/postern/$program.toml"
  chmod 0644 "$root/etc/postern/$program.toml"
fi

if [ -z "$root" ]; then
  systemd-sysusers postern.conf
  install -d -m 0700 -o "$user" -g "$user" "$state"
  # The state of a trial run belongs to whoever ran it.
  chown -R -h "$user:$user" "$state"
  systemctl daemon-reload
  systemctl enable "$unit"
fi
echo "$unit is installed. Settings: /etc/postern/$program.toml. Start it: systemctl start postern-$program"
