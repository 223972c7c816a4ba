#!/bin/bash
# SPDX-License-Identifier: MIT
# What hints cost for what is resident, in virtual time: counted instructions, the
# same on any machine.  MMNF_COST_PAGES=1000000 is the promise's own size.
set -euo pipefail
pages=${MMNF_COST_PAGES:-32768}
export MMNF_CLOCK=virtual
# shellcheck disable=SC2016 # the guest expands them
exec "$MMNF_SRC/tests/vm/run.py" --icount --mem $((1024 + pages / 200))M \
	--timeout 1100 -- '
insmod "$MMNF_KO"
"$MMNF_BUILD/tests/kselftest/cost" | tee "$TMPDIR/log"
rmmod mmnf
[ "$(grep -c "OK  cost" "$TMPDIR/log")" = 2 ] &&
	! grep -q "SKIP\|not ok" "$TMPDIR/log"'
