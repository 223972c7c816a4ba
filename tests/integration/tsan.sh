#!/bin/bash
# SPDX-License-Identifier: MIT
# The tests with threads again, built with TSan: no data race, no lock order.
set -euo pipefail
cd "$MMNF_SRC"
programs=(batch durable engines cache guard mapped readahead segments ssd_cache ssd_queue tiles windows)
make -s -j2 "${programs[@]/#/build/tsan/tests/unit/}"
export TSAN_OPTIONS="halt_on_error=1 second_deadlock_stack=1"
export KTAP_TIMEOUT=120
for program in "${programs[@]}"; do
	"build/tsan/tests/unit/$program" '*thread*' 'submitter*' '*others*' 'a_sync*' >"$TMPDIR/out" || {
		cat "$TMPDIR/out"
		exit 1
	}
	grep -q '^ok' "$TMPDIR/out"
done

# Readers of servers that come and go; without nbdkit they skip.
make -s build/tsan/tests/unit/{net_alone,net_batch,net_faults,net_ends,once,twins}
served()
{
	status=0
	"build/tsan/tests/unit/$1" "${@:2}" >"$TMPDIR/out" || status=$?
	if [ $status != 0 ] && [ $status != 4 ]; then
		cat "$TMPDIR/out"
		exit 1
	fi
}
served net_alone 'threads*' 'wait*'
served net_batch
served once
served twins
served net_faults 'killed*' 'gone*' 'closed*'
served net_ends 'name*' 'open*'
