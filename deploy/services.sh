#!/bin/sh
# Installs the servers that the tests start by themselves (Redis, RabbitMQ, PostgreSQL), iproute2, with which one of them
# drops packets, and curl and Node, which run the snippets of the message contract. Debian and its kin, as root.
# Elsewhere it says what is missing and goes on: tests skip a missing server, except in CI.
set -eu

missing=""
command -v redis-server >/dev/null 2>&1 || command -v valkey-server >/dev/null 2>&1 || missing="$missing redis-server"
[ -x /usr/sbin/rabbitmq-server ] || command -v rabbitmq-server >/dev/null 2>&1 || missing="$missing rabbitmq-server"
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null 2>&1 || missing="$missing postgresql"
{ command -v ip && command -v tc; } >/dev/null 2>&1 || missing="$missing iproute2"
command -v curl >/dev/null 2>&1 || missing="$missing curl"
command -v node >/dev/null 2>&1 || missing="$missing nodejs"
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null 2>&1 || [ "$(id -u)" -ne 0 ]; then
    echo "missing:$missing (install them to run every test; as root on Debian this target does it)" >&2
    exit 0
fi

echo "installing$missing"
# Debian starts a server as soon as it is installed; the tests want none but their own.
policy=/usr/sbin/policy-rc.d
made=""
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod +x "$policy"
    made=yes
fi
trap '[ -z "$made" ] || rm -f "$policy"' EXIT
export DEBIAN_FRONTEND=noninteractive
apt-get update -q >/dev/null
# shellcheck disable=SC2086  # a list of words
apt-get install -y -q --no-install-recommends $missing >/dev/null
