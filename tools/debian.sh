#!/usr/bin/env bash
# Install Debian's PostgreSQL 15 for the tests against a second major version and a server with TLS, SoftHSM2, the PKCS#11 token that needs no
# hardware, and for the audit log PgBouncer and SQLAlchemy: the pooler and the application of a vendor. Fails loudly when it cannot.
# No cluster is created and no server is left running by the installation: the tests make their own on private sockets.
set -euo pipefail

wanted=()
if ! [ -x "${OBHUT_POSTGRES_15:-/usr/lib/postgresql/15/bin}/pg_ctl" ] && ! [ -x /usr/lib/postgresql/15/bin/pg_ctl ]; then wanted+=(postgresql-15); fi
if ! [ -e /usr/lib/softhsm/libsofthsm2.so ]; then wanted+=(softhsm2); fi
if ! [ -x /usr/sbin/pgbouncer ]; then wanted+=(pgbouncer); fi
if ! /usr/bin/python3 -c 'import psycopg2, sqlalchemy' 2>/dev/null; then wanted+=(python3-sqlalchemy python3-psycopg2); fi
if [ ${#wanted[@]} -eq 0 ]; then exit 0; fi

if ! command -v apt-get >/dev/null; then
  echo "make test: ${wanted[*]} missing, and this is no Debian or Ubuntu to install it on" >&2
  echo "HINT: Install it; the directory of PostgreSQL's programs can be named: OBHUT_POSTGRES_15=/usr/pgsql-15/bin make test" >&2
  exit 1
fi
root=()
if [ "$(id -u)" -ne 0 ]; then
  if ! sudo -n true 2>/dev/null; then
    echo "make test: ${wanted[*]} missing, and installing it needs root" >&2
    echo "HINT: Run \"sudo apt-get install ${wanted[*]}\", then make test again." >&2
    exit 1
  fi
  root=(sudo -n)
fi
echo "make test: installing ${wanted[*]} (no cluster is created)"
"${root[@]}" mkdir -p /etc/postgresql-common/createcluster.d
echo "create_main_cluster = false" | "${root[@]}" tee /etc/postgresql-common/createcluster.d/obhut.conf >/dev/null
"${root[@]}" apt-get update -qq
if [[ " ${wanted[*]} " == *" postgresql-15 "* ]] && ! apt-cache show postgresql-15 >/dev/null 2>&1; then
  echo "make test: this distribution has no postgresql-15" >&2
  echo "HINT: Add PostgreSQL's own package source (pgdg), or install 15 otherwise and set OBHUT_POSTGRES_15 to its bin directory." >&2
  exit 1
fi
"${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${wanted[@]}" >/dev/null
# Its package starts a pooler for nobody.
if [[ " ${wanted[*]} " == *" pgbouncer "* ]] && [ -d /run/systemd/system ]; then "${root[@]}" systemctl disable --now pgbouncer >/dev/null 2>&1 || true; fi
if [[ " ${wanted[*]} " == *" postgresql-15 "* ]] && [ ! -x /usr/lib/postgresql/15/bin/pg_ctl ]; then
  echo "make test: postgresql-15 is installed, and yet there is no /usr/lib/postgresql/15/bin/pg_ctl" >&2
  exit 1
fi
