#!/bin/sh
# Makes ready what a target of the Makefile needs, and is quick when that was done before.
#
#   scripts/setup.sh demo     the package, with what the demo uses
#   scripts/setup.sh check    that, and the tools of development
#   scripts/setup.sh test     that, and the brokers: Redis, Mosquitto, RabbitMQ
#   scripts/setup.sh interop  that, and released commlib-py, each in an environment of its own
#   scripts/setup.sh bench    as test, with what draws pictures, and the contenders, likewise
#   scripts/setup.sh instructions  as test, and what counts instructions
#   scripts/setup.sh fuzz     as check, and the engine that looks for inputs
#   scripts/setup.sh docs     as check, and what builds the documentation
#
# VENV is the folder of the virtual environment (.venv), PYTHON the interpreter to make it with.
# System packages are installed when we are root and there is apt-get; otherwise one line says
# what is missing.
set -eu
cd "$(dirname "$0")/.."

venv=${VENV:-.venv}
mode=${1:-}
log=$(mktemp)
policy=/usr/sbin/policy-rc.d
policy_is_ours=

leave() {
    rm -f "$log"
    [ -z "$policy_is_ours" ] || rm -f "$policy"
}
trap leave EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

say() { echo "setup: $*" >&2; }
fail() { say "$*"; exit 1; }

# Runs a command that is silent unless it fails.
quietly() {
    "$@" >"$log" 2>&1 </dev/null || {
        tail -n 40 "$log" >&2
        fail "failed: $*"
    }
}

# -- system packages ---------------------------------------------------------------------------

can_install() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

# A package that brings a service must not start it: invoke-rc.d asks this program first.
hold_services() {
    if [ ! -e "$policy" ] && [ ! -L "$policy" ]; then
        policy_is_ours=yes
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
}

apt_install() {
    say "installing system packages: $*"
    hold_services
    export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1
    # One broken source in the list must not matter if the package is in another.
    apt-get update >"$log" 2>&1 </dev/null || say "apt-get update complained: $(tail -n 1 "$log")"
    quietly apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "$@"
}

# Debian keeps servers where the PATH of a normal user does not lead.
has() { (PATH=$PATH:/usr/local/sbin:/usr/sbin && command -v "$1" >/dev/null); }

# The others come from the package index: Valkey with the extra `broker`, NATS with the group `dev`.
need_brokers() {
    set --
    has redis-server || set -- "$@" redis-server
    has mosquitto && has mosquitto_passwd || set -- "$@" mosquitto
    has mosquitto_pub && has mosquitto_sub || set -- "$@" mosquitto-clients
    has rabbitmq-server || set -- "$@" rabbitmq-server
    has openssl || set -- "$@" openssl  # an example makes certificates with it
    if [ $# = 0 ]; then return; fi
    can_install || fail "the tests need brokers; install them with: sudo apt-get install $*"
    apt_install "$@"
}

need_valgrind() {
    if has valgrind; then return; fi
    can_install || fail "instructions are counted by valgrind; install it with: sudo apt-get install valgrind"
    apt_install valgrind
}

# -- the virtual environment -------------------------------------------------------------------

# Prints the first Python that is new enough. Each is asked: a name may be a mere shim.
find_python() {
    for name in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
    fail "no Python 3.11 or later among: ${PYTHON:-python3 python3.14 ... python3.11}; install one, or name it with PYTHON="
}

# Debian keeps what makes environments in a package of its own.
need_ensurepip() {
    if "$1" -c 'import ensurepip, venv' 2>/dev/null; then return; fi
    missing=$("$1" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    can_install || fail "$1 cannot make virtual environments; install that with: sudo apt-get install $missing"
    apt_install "$missing"
}

make_venv() {
    # It is going to be emptied, so be sure of what it is.
    if [ -e "$venv" ] && [ ! -f "$venv/pyvenv.cfg" ] && [ -n "$(ls -A "$venv")" ]; then
        fail "$venv exists and is no virtual environment; name another with VENV="
    fi
    python=$(find_python)
    need_ensurepip "$python"
    say "making $venv with $("$python" --version), once"
    quietly "$python" -m venv --clear "$venv"
}

# What an installation depends on. Its scripts hold the folder's name, so a moved copy is made anew.
listed=pyproject.toml
wanted() { echo "$(pwd) $(cat "$listed" scripts/setup.sh | cksum)"; }

is_ready() { [ -x "$venv/bin/python" ] && [ "$(cat "$venv/commlib-$1" 2>/dev/null)" = "$(wanted)" ]; }

moved() {
    for old in "$venv"/commlib-*; do
        case $(cat "$old" 2>/dev/null) in
            "" | "$(pwd) "*) ;;
            *) return 0 ;;
        esac
    done
    return 1
}

# install STAMP ARGUMENT... : pip install the package and what else is named, unless that was done.
install() {
    stamp=$1
    shift
    if is_ready "$stamp"; then return; fi
    if moved || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then make_venv; fi
    say "installing Python packages into $venv"
    # Dependency groups need pip 25.1; what comes with Python is often older.
    quietly "$venv/bin/python" -m pip install --upgrade pip
    quietly "$venv/bin/python" -m pip install "$@"
    wanted >"$venv/commlib-$stamp"
}

# install_each FOLDER LIST... : an environment in that folder for each list of requirements.
install_each() {
    folder=$1
    shift
    for listed in "$@"; do
        venv=$folder/$(basename "$listed" .txt)
        install release -r "$listed"
    done
}

package='.[redis,mqtt,websockets,cli,broker,zstd,speed]'
case $mode in
    demo) is_ready dev || install demo -e "$package" ;;
    check) install dev -e "$package" --group dev ;;
    test)
        need_brokers
        install dev -e "$package" --group dev
        ;;
    interop)
        need_brokers
        install dev -e "$package" --group dev
        install_each .venv-interop tests/interop/releases/*.txt
        ;;
    bench)
        need_brokers
        install bench -e "$package" --group dev --group bench
        install_each .venv-bench bench/contenders/*.txt
        ;;
    instructions)
        need_brokers
        need_valgrind
        install dev -e "$package" --group dev
        ;;
    fuzz) install fuzz -e "$package" --group dev --group fuzz ;;
    docs) install docs -e "$package" --group dev --group docs ;;
    *) fail "usage: scripts/setup.sh demo|check|test|interop|bench|instructions|fuzz|docs" ;;
esac
