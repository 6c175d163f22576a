#!/usr/bin/env bash
# Installs what the end-to-end tests run against: real servers, real SDKs. Idempotent; a second run takes under a second.
# Everything but missing system packages and node_modules goes to ${XDG_CACHE_HOME:-~/.cache}/sluice-tests.
#
#   tests/install.sh            install what is missing
#   tests/install.sh --again    rebuild all of it (takes a newer llama.cpp from Debian sid)
#   tests/install.sh --paths    print where things are, as shell assignments; installs nothing
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/sluice-tests
LLAMA=$CACHE/llama
VENV=$CACHE/venv
NODE=$HERE/sdk/node
OIDC=$HERE/parts/oidc

case ${1:-} in
'') ;;
--again) rm -rf "$CACHE" "$NODE/node_modules" "$OIDC/node_modules" ;;
--paths)
    printf 'CACHE=%q\nVENV=%q\nLLAMA=%q\n' "$CACHE" "$VENV" "$LLAMA"
    exit 0
    ;;
*)
    sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
    ;;
esac

mkdir -p "$CACHE"
exec 9>"$CACHE/lock"
# Bound: the slowest part takes a minute, so two installs at once wait for each other no longer than this.
flock -w 600 9 || { echo "install: another tests/install.sh has held $CACHE/lock for ten minutes" >&2; exit 1; }

fail() {
    printf '\ninstall: %s\n' "$@" >&2
    exit 1
}

say() { printf '  %-10s %6s  %s\n' "$1" "$2" "$3"; }

# part NAME FUNCTION WHAT: runs one part with its output in a log, and says how long it took.
part() {
    local name=$1 log=$CACHE/$1.log from=$EPOCHREALTIME
    if ! "$2" >"$log" 2>&1 </dev/null; then
        tail -n 20 "$log" >&2
        fail "$name failed (whole log: $log)" "$(advice "$name")"
    fi
    local took=$(((${EPOCHREALTIME/./} - ${from/./}) / 1000))
    say "$name" "$((took / 1000)).$(printf '%03d' $((took % 1000)) | cut -c1)s" "$3"
}

advice() {
    case $1 in
    system) echo "try by hand: apt-get update && apt-get install $(missing_packages)" ;;
    llama) echo "the Debian mirror must serve the suite 'sid' for this architecture; name another one with" \
        "SLUICE_TESTS_MIRROR=https://host/debian tests/install.sh, or put a llama-server of your own on" \
        "the path and say SLUICE_TESTS_LLAMA=/path/to/llama-server" ;;
    models) echo "needs Python 3.9 or newer and 70 MB free in $CACHE" ;;
    python) echo "needs Python 3.11 with venv, and a package index that has what tests/requirements.txt names" ;;
    oidc) echo "needs Node 20 with npm, and a registry that has what tests/parts/oidc/package-lock.json names" ;;
    node) echo "needs Node 20 with npm, and a registry that has what tests/sdk/node/package-lock.json names" ;;
    esac
}

# fresh STAMP KEY: true when STAMP says that KEY is what was installed last.
fresh() { [ -f "$1" ] && [ "$(<"$1")" = "$2" ]; }

digest() { cat "$@" | sha256sum | cut -c1-16; }

# === system packages ===

missing_packages() {
    local wanted=()
    command -v curl >/dev/null || wanted+=(curl)
    command -v openssl >/dev/null || wanted+=(openssl)
    command -v ps >/dev/null || wanted+=(procps)
    { command -v nginx || [ -x /usr/sbin/nginx ]; } >/dev/null || wanted+=(nginx-light)
    command -v chromium >/dev/null || wanted+=(chromium)
    # The server itself; Debian keeps it off the path.
    compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || command -v initdb >/dev/null || wanted+=(postgresql)
    command -v redis-server >/dev/null || wanted+=(redis-server)
    # Makes the small disks that tests fill and hang.
    { command -v mkfs.ext4 || [ -x /sbin/mkfs.ext4 ]; } >/dev/null || wanted+=(e2fsprogs)
    { command -v unshare && command -v fsfreeze || [ -x /sbin/fsfreeze ]; } >/dev/null || wanted+=(util-linux)
    # Compiles examples/signing/sign.go.
    command -v go >/dev/null || wanted+=(golang-go)
    python3 -c 'import ensurepip, venv' 2>/dev/null || wanted+=(python3-venv)
    [ -f /usr/share/keyrings/debian-archive-keyring.gpg ] || wanted+=(debian-archive-keyring)
    echo "${wanted[*]}"
}

install_system() {
    apt-get update
    # shellcheck disable=SC2046  # a list of names
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $(missing_packages)
}

# === llama.cpp ===

mirror() { # the mirror this system's own apt uses
    [ -z "${SLUICE_TESTS_MIRROR:-}" ] || { echo "$SLUICE_TESTS_MIRROR"; return; }
    cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null |
        sed -nE 's#^(URIs:|deb( \[[^]]*\])?) *(https?://[^ ]*/debian)/?( .*|$)#\3#p' | head -n 1
}

# Debian's newest llama-server with the libraries it needs, unpacked beside the system: nothing is installed, no
# maintainer script runs, no chroot and no mounts are needed. parts/llama.sh starts it with its own dynamic linker.
install_llama() {
    local from apt=$LLAMA.apt root=$LLAMA.new
    from=$(mirror)
    [ -n "$from" ] || { echo "no Debian mirror found in /etc/apt"; return 1; }
    rm -rf "$apt" "$root"
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$root/usr/bin" "$root/usr/lib" "$root/usr/lib64" "$root/usr/sbin"
    for dir in bin lib lib64 sbin; do ln -s "usr/$dir" "$root/$dir"; done
    : >"$apt/status" # nothing counts as installed, so the whole closure is downloaded
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $from sid main" >"$apt/sources.list"
    local options=(-o Dir::Etc::sourcelist="$apt/sources.list" -o Dir::Etc::sourceparts=/dev/null
        -o Dir::State::lists="$apt/lists" -o Dir::State::status="$apt/status" -o Dir::Cache="$apt/cache"
        -o APT::Sandbox::User=root -o Acquire::Languages=none -o Acquire::Retries=3 -o Acquire::http::Timeout=60)
    apt-get "${options[@]}" update || return 1
    apt-get "${options[@]}" install -y --no-install-recommends --download-only llama.cpp-tools || return 1
    for deb in "$apt"/cache/archives/*.deb; do dpkg -x "$deb" "$root" || return 1; done
    local libraries
    libraries=$(dirname "$(readlink -f "$root"/lib*/ld-linux-*.so.*)")
    # The server looks for its CPU back ends beside its executable, which is the dynamic linker here.
    (cd "$libraries" && ln -s ggml/backends0/*.so .) || return 1
    rm -rf "$LLAMA"
    mv "$root" "$LLAMA"
    rm -rf "$apt"
    "$HERE/parts/llama.sh" --version >"$CACHE/llama.version" 2>&1 || { cat "$CACHE/llama.version"; return 1; }
}

install_models() {
    # tiny: thousands of tokens per second, answers are there at once. slow: hundreds, so that a stream lasts seconds.
    python3 "$HERE/parts/tiny_gguf.py" "$CACHE/tiny.gguf" &&
        python3 "$HERE/parts/tiny_gguf.py" "$CACHE/slow.gguf" --layers 4 --ff 4096
}

# === SDKs ===

install_python() {
    rm -rf "$VENV"
    python3 -m venv "$VENV" && "$VENV/bin/pip" install --disable-pip-version-check --no-deps -r "$HERE/requirements.txt" &&
        "$VENV/bin/pip" check
}

install_node() { (cd "$NODE" && npm ci --no-audit --no-fund); }

# An OpenID provider, for tokens.
install_oidc() { (cd "$OIDC" && npm ci --no-audit --no-fund); }

# === all of it ===

# once NAME FUNCTION KEY WHAT: a part that is done again only when its KEY changes.
once() {
    if fresh "$CACHE/$1.stamp" "$3"; then
        say "$1" ok "$4"
    else
        part "$1" "$2" "$4"
        echo "$3" >"$CACHE/$1.stamp"
    fi
}

command -v python3 >/dev/null || fail "python3 is missing: install Python 3.11"
command -v npm >/dev/null || fail "npm is missing: install Node 20"
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "python3 is $(python3 -V), the tests need 3.11"

echo "test parts in $CACHE:"
needed=$(missing_packages)
if [ -n "$needed" ]; then part system install_system "apt packages: $needed"; else say system ok "curl, openssl, procps, nginx, chromium, postgresql, redis"; fi
if [ -n "${SLUICE_TESTS_LLAMA:-}" ]; then
    "$HERE/parts/llama.sh" --version >"$CACHE/llama.version" 2>&1 || fail "$SLUICE_TESTS_LLAMA --version failed"
else
    [ -x "$LLAMA/usr/bin/llama-server" ] || rm -f "$CACHE/llama.stamp"
    once llama install_llama "$(sed -n '/^install_llama/,/^}/p' "${BASH_SOURCE[0]}" | sha256sum | cut -c1-16)" \
        "llama-server from Debian sid, 19 MB to download, 75 MB on disk"
fi
[ -f "$CACHE/tiny.gguf" ] && [ -f "$CACHE/slow.gguf" ] || rm -f "$CACHE/models.stamp"
once models install_models "$(digest "$HERE/parts/tiny_gguf.py")" "generated models: tiny (6 MB, fast), slow (55 MB)"
[ -x "$VENV/bin/pytest" ] || rm -f "$CACHE/python.stamp"
once python install_python "$(python3 -V) $(digest "$HERE/requirements.txt")" "pytest, openai SDK, httpx in a virtual environment"
[ -d "$NODE/node_modules/openai" ] && [ -d "$NODE/node_modules/playwright-core" ] || rm -f "$CACHE/node.stamp"
once node install_node "$NODE $(digest "$NODE/package-lock.json")" "openai SDK and playwright for Node in tests/sdk/node/node_modules"
[ -d "$OIDC/node_modules/oidc-provider" ] || rm -f "$CACHE/oidc.stamp"
once oidc install_oidc "$OIDC $(digest "$OIDC/package-lock.json")" "oidc-provider, 3 MB, in tests/parts/oidc/node_modules"
echo "llama.cpp: $(head -n 1 "$CACHE/llama.version")"
