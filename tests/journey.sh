#!/usr/bin/env bash
# What a person does from tiles and a mission to a fleet, with what must be seen at each step. CI runs it whole: .ci/journey.
#
#   tests/journey.sh FOLDER SMALL...
#
# FOLDER: an empty directory, the desk and the vehicles are in it. SMALL: the words that run flightcache where only cryptography is
# installed. `flightcache`, `doit` and `python` are those of the desk, with [build].
set -euo pipefail
desk=$(realpath "$1")
small=("${@:2}")
repository=$(cd "$(dirname "$0")/.." && pwd)
cd "$desk"
export HOME=$desk/home NO_COLOR=1
unset XDG_CONFIG_HOME FLIGHTCACHE_PUBLIC_KEY FLIGHTCACHE_VEHICLE
mkdir home

step() { printf '\n== %s\n' "$*"; }

# see PATTERN COMMAND...: the command succeeds and says so. refused PATTERN COMMAND...: it does not, and says so.
see() { run 0 "$@"; }
refused() { run 1 "$@"; }
run() {
  local fails=$1 pattern=$2 code=0
  shift 2
  printf '$ %s\n' "$*"
  "$@" > "$desk/said" 2>&1 < /dev/null || code=$?
  if [[ $((code != 0)) != "$fails" ]] || { [[ $pattern ]] && ! grep -qE -- "$pattern" "$desk/said"; }; then
    printf 'exit code %s; expected to see: %s\n' "$code" "$pattern" >&2
    cat "$desk/said" >&2
    exit 1
  fi
  grep -m1 -E -- "$pattern" "$desk/said" | sed 's/^/    /' || true
}

# A stand-in for ssh to a vehicle of this name: the same command line, in a home of its own.
cat > ssh-to << 'END'
#!/bin/sh
mkdir -p "$VEHICLES/$1/home" && cd "$VEHICLES/$1" && HOME="$VEHICLES/$1/home" exec sh -c "$2"
END
chmod +x ssh-to
export VEHICLES=$desk/vehicles
on() { "$desk/ssh-to" "$1" "${*:2}"; } # on NAME COMMAND LINE

step "Tiles and a mission"
PYTHONPATH=$repository python -c 'from pathlib import Path; from tests.building import put_tiles; put_tiles(Path("tiles"), side=6)'
printf '%s\t%s\t%s\t%s\t0\t0\t0\t0\t%s\t%s\t%s\t1\n' \
  0 1 0 16 47.3700 8.5600 450   1 0 3 22 47.3700 8.5600 60   2 0 3 16 47.3550 8.5850 120 | sed '1i QGC WPL 110' > mission.waypoints

step "Keys: who may sign, said once by a root key"
see 'root.pub.pem' flightcache keygen root.pem
see 'operator.pub.pem' flightcache keygen operator.pem
fingerprint() { flightcache key fingerprint "$1" | cut -c1-64; }
see '' flightcache trust init trust.json --root root.pub.pem --signing operator.pub.pem --not-after never
see '' flightcache trust sign trust.json --key root.pem

step "A cache directory, and what a build would do"
see 'survey' flightcache init survey --tiles tiles --mission mission.waypoints --backbone builtin:gist-color --key operator.pem
cp trust.json survey/
sed -i 's/^# id = .*/id = "F-118"/; s/^# aircraft = .*/aircraft = "AC-7"/' survey/flight.toml
refused 'descriptors' flightcache plan survey # exit code 1: there is work

step "The build, its report, and a build that finds nothing to do"
cd survey
see '^SUCCESS.*PASS, counter 1, flight F-118' doit
see '^IDEMPOTENT_NO_OP' doit
see 'F-118' cat current/report.html
refused '' grep -oE '(src|href)="https?:' current/report.html # it asks the network for nothing

step "A bundle, and what is in it"
see 'first.tar' flightcache bundle . -o ../first.tar --trust trust.json
cd ..
see 'F-118' flightcache info first.tar --trust trust.json

step "On the vehicle, with the small package: trust once, install, verify"
printf -v vehicle '%q ' "${small[@]}"
see '' on heron-1 "$vehicle trust install $desk/trust.json cache --root-fingerprint $(fingerprint root.pub.pem)"
see 'counter 1' on heron-1 "$vehicle install $desk/first.tar cache --flight F-118 --aircraft AC-7"
see 'PASS' on heron-1 "$vehicle verify cache --flight F-118 --aircraft AC-7 --any-host"
refused 'REFUSED' on heron-1 "$vehicle verify cache --flight F-119 --aircraft AC-7 --any-host"
refused 'flightcache\[build\]' on heron-1 "$vehicle locate $desk/tiles/14/8582/5738.jpg --cache cache"

step "Does it know the place?"
see '14/8582/5738' flightcache locate tiles/14/8582/5738.jpg --cache survey --heading 0 --trust trust.json

step "New tiles: only they are computed; only what is new is sent"
cp tiles/14/8585/5741.jpg tiles/14/8582/5738.jpg.new && mv tiles/14/8582/5738.jpg.new tiles/14/8582/5738.jpg
cd survey
see '^SUCCESS.*descriptors 8 generated.*counter 2' doit
send() { see "$1" flightcache sync vehicle:cache --via "$desk/ssh-to heron-1" --remote "$vehicle" --flight F-118 --aircraft AC-7 --trust trust.json; }
send 'counter 2'
see 'PASS, counter 2' on heron-1 "$vehicle verify cache --flight F-118 --aircraft AC-7 --any-host"

step "Back to what was there before, under a higher counter"
see '3' flightcache rollback
send 'counter 3'
see 'PASS, counter 3' on heron-1 "$vehicle verify cache --flight F-118 --aircraft AC-7 --any-host"
refused 'counter' on heron-1 "$vehicle install $desk/first.tar cache --flight F-118 --aircraft AC-7" # older than what has flown

step "Another signing key; the old one counts no more"
see '' flightcache keygen ../new.pem
see '' flightcache trust next trust.json --signing ../new.pub.pem --revoke "$(fingerprint ../operator.pub.pem)"
see '' flightcache trust sign trust.json --key ../root.pem
sed -i "s#^key = .*#key = \"$desk/new.pem\"#" flight.toml
see '^SUCCESS.*engines 0 built.*descriptors 0 generated.*counter 4' doit
send 'counter 4'
see 'PASS, counter 4' on heron-1 "$vehicle verify cache --flight F-118 --aircraft AC-7 --any-host"

step "A fleet of three, each with an engine compiled on it"
for name in heron-2 heron-3; do
  see '' on "$name" "$vehicle trust install $desk/survey/trust.json cache --root-fingerprint $(fingerprint ../root.pub.pem)"
done
for number in 1 2 3; do
  cat << END
[[vehicle]]
name = "heron-$number"
flight = "F-20$number"
aircraft = "AC-7$number"
command = "$desk/ssh-to heron-$number"
target = "$VEHICLES/heron-$number/cache"
receipt_key = "$VEHICLES/heron-$number/cache.vehicle/key.pub.pem"
END
done > FLEET.toml
see 'heron-3.*0 descriptors computed' flightcache fleet FLEET.toml
see 'heron-3.*PASS' flightcache fleet status FLEET.toml
for number in 1 2 3; do
  see "PASS.*F-20$number" on heron-$number "$vehicle verify cache --flight F-20$number --aircraft AC-7$number --any-host"
done
printf '\nthe whole journey: %s s\n' "$SECONDS"
