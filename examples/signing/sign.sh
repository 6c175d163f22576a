#!/usr/bin/env bash
# Sign a request to Sluice with curl and openssl: RFC 9421 with HMAC-SHA256.
#
#   SLUICE_SIGNING_SECRET=sk-sign-... ./sign.sh KEY_ID URL BODY_FILE                        sends a POST, prints the answer
#   SLUICE_SIGNING_SECRET=sk-sign-... ./sign.sh --headers KEY_ID METHOD URL CREATED LIFETIME NONCE [BODY_FILE]
#                                                                                           prints the headers, to compare
set -euo pipefail

# sign KEY_ID METHOD URL CREATED LIFETIME NONCE [BODY_FILE]: prints the headers
sign() {
    local key=$1 method=$2 url=$3 created=$4 lifetime=$5 nonce=$6 body=${7:-}
    local rest=${url#*://}
    local authority=${rest%%[/?]*}
    rest=${rest#"$authority"}
    authority=${authority,,}
    case $url in https:*) authority=${authority%:443} ;; *) authority=${authority%:80} ;; esac
    local path=${rest%%\?*} query=
    case $rest in *\?*) query=${rest#*\?} ;; esac
    local names='"@method" "@authority" "@path" "@query"' digest= base
    base=$(printf '"@method": %s\n"@authority": %s\n"@path": %s\n"@query": ?%s' "$method" "$authority" "${path:-/}" "$query")
    if [ -n "$body" ]; then
        digest="sha-256=:$(openssl dgst -sha256 -binary "$body" | base64 -w0):"
        names="$names \"content-digest\""
        base=$(printf '%s\n"content-digest": %s' "$base" "$digest")
        echo "content-digest: $digest"
    fi
    local parameters="($names);created=$created;expires=$((created + lifetime));nonce=\"$nonce\";keyid=\"$key\";alg=\"hmac-sha256\""
    base=$(printf '%s\n"@signature-params": %s' "$base" "$parameters")
    echo "signature-input: sluice=$parameters"
    # In hexadecimal, so that no other program sees the secret's characters as options; they are the key, undecoded.
    local hex tag
    hex=$(printf '%s' "$SLUICE_SIGNING_SECRET" | od -An -v -tx1 | tr -d ' \n')
    tag=$(printf '%s' "$base" | openssl dgst -sha256 -mac HMAC -macopt "hexkey:$hex" -binary | base64 -w0)
    echo "signature: sluice=:$tag:"
}

if [ "$1" = --headers ]; then
    shift
    sign "$@"
else
    sign "$1" POST "$2" "$(date +%s)" 60 "$(openssl rand -hex 16)" "$3" |
        curl -sS --fail-with-body -H @- -H 'content-type: application/json' --data-binary "@$3" "$2"
fi
